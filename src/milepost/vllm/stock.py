"""Where stock vLLM keeps states, so that the plugin can keep those too.

For a prompt it keeps (0.32: ``Scheduler._mamba_block_aligned_split``, ``MambaManager.reachable_block_mask``)

    the tail       the last block boundary that the prompt itself can be resumed from when it is sent again;
                   with a match unit, the last unit too
    the junction   the block boundary up to which it shares KV with an earlier prompt, where that is deeper
                   than what it was resumed from
    the end        of a prompt of exactly so many blocks: there the last state fills a block, and who goes on
                   from that prompt resumes

and ends a prefill chunk at each. So a chunk that ends there costs nothing beside stock vLLM. Where the model
exports a state from inside the prompt's last chunk, that is the only tail, and no chunk ends for it.
"""

from milepost.placement import PlacementRequest
from milepost.vllm.layout import PoolLayout

__all__ = [
    "MOST_STOCK_POSITIONS",
    "exported_tail",
    "full_end",
    "seen_junction",
    "stock_positions",
    "stopless_positions",
]

MOST_STOCK_POSITIONS = 4


def stock_positions(layout: PoolLayout, *, num_tokens: int, resumed: int, shared: int) -> tuple[int, ...]:
    """Return where stock vLLM keeps states of a prompt of ``num_tokens`` tokens, ascending, where it resumes
    at ``resumed`` and shares ``shared`` with an earlier one.

    >>> layout = PoolLayout(num_blocks=9, block_tokens=64, match_tokens=16, kv_groups=(3,), state_groups=(0,))
    >>> stock_positions(layout, num_tokens=256, resumed=0, shared=100)
    (64, 192, 240, 256)
    """
    block_tokens = layout.block_tokens
    last = num_tokens - layout.rest_tokens
    exported = _exported_after_junction(layout, num_tokens=num_tokens, resumed=resumed, shared=shared)
    positions = {shared // block_tokens * block_tokens, exported}
    if not exported:
        positions |= {last // block_tokens * block_tokens, last // layout.grid_tokens * layout.grid_tokens}
    kept = sorted(position for position in positions if resumed < position <= last)
    end = full_end(layout, num_tokens)
    return (*kept, end) if end else tuple(kept)


def stopless_positions(layout: PoolLayout, *, num_tokens: int, resumed: int, shared: int) -> tuple[int, ...]:
    """Return those of :func:`stock_positions` for which no chunk has to end that would not end there anyway:
    the tail where the model exports it, and the end.

    >>> layout = PoolLayout(num_blocks=9, block_tokens=64, match_tokens=16, kv_groups=(3,), state_groups=(0,),
    ...                     export_tokens=16)
    >>> stopless_positions(layout, num_tokens=256, resumed=0, shared=0)
    (240, 256)
    """
    exported = _exported_after_junction(layout, num_tokens=num_tokens, resumed=resumed, shared=shared)
    return tuple(position for position in (exported, full_end(layout, num_tokens)) if position)


def full_end(layout: PoolLayout, num_tokens: int) -> int:
    """Return the end of a prompt of ``num_tokens`` tokens if its last state fills a block that has a hash;
    else 0. A block whose hash covers tokens of the answer too has none yet.
    """
    is_full = num_tokens % layout.block_tokens == 0 and layout.hashed_tokens(num_tokens) == num_tokens
    return num_tokens if is_full else 0


def _exported_after_junction(layout: PoolLayout, *, num_tokens: int, resumed: int, shared: int) -> int:
    """Return the tail that the model exports if the last chunk begins as early as it can, after the junction;
    else 0.
    """
    junction = shared // layout.block_tokens * layout.block_tokens
    return exported_tail(layout, start=max(resumed, junction), num_tokens=num_tokens)


def exported_tail(layout: PoolLayout, *, start: int, num_tokens: int) -> int:
    """Return the tail of a prompt of ``num_tokens`` tokens if the model exports the state there from inside
    the last chunk, where that begins at ``start``; else 0. The rule is vLLM's (0.32:
    ``is_mamba_prefill_checkpoint_valid``): the state goes to the column before the last, which has to lie
    after that of the state which the chunk begins with.

    >>> layout = PoolLayout(num_blocks=9, block_tokens=64, match_tokens=16, kv_groups=(3,), state_groups=(0,),
    ...                     export_tokens=16)
    >>> exported_tail(layout, start=0, num_tokens=1000), exported_tail(layout, start=960, num_tokens=1000)
    (992, 0)
    """
    if layout.export_tokens is None:
        return 0
    tail = (num_tokens - max(1, layout.lookahead_tokens)) // layout.grid_tokens * layout.grid_tokens
    column, first_column = -(-num_tokens // layout.block_tokens) - 2, (start - 1) // layout.block_tokens
    is_exported = (
        tail <= num_tokens - layout.rest_tokens
        and start % layout.match_tokens == 0
        and column > first_column
        and start + layout.match_tokens <= tail
        and (tail - start) % layout.export_tokens == 0
    )
    return tail if is_exported else 0


def seen_junction(layout: PoolLayout, request: PlacementRequest) -> int:
    """Return up to where stock vLLM would see that a prompt is shared, by what a cache knows of it.

    >>> layout = PoolLayout(num_blocks=9, block_tokens=64, match_tokens=16, kv_groups=(3,), state_groups=(0,))
    >>> request = PlacementRequest(num_tokens=256, overlap_depth=200, resident_kv_tokens=64, grid=16)
    >>> seen_junction(layout, request)
    64
    """
    block_tokens = layout.block_tokens
    shared = request.overlap_depth // block_tokens * block_tokens
    resident = request.resident_kv_tokens // block_tokens * block_tokens
    # What lies after it was evicted, or never had KV.
    return resident if layout.kv_groups and shared - resident > block_tokens else shared
