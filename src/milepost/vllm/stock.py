"""Where stock vLLM keeps states, so that the plugin can keep those too.

For a prompt it keeps (0.32: ``Scheduler._mamba_block_aligned_split``, ``MambaManager.reachable_block_mask``)

    the tail       the last block boundary that the prompt itself can be resumed from when it is sent again;
                   with a match unit, the last unit too
    the junction   the block boundary up to which it shares KV with an earlier prompt, where that lies behind
                   what it was resumed from

and ends a prefill chunk at each. So a chunk that ends there costs nothing beside stock vLLM.
"""

from milepost.placement import PlacementRequest
from milepost.vllm.layout import PoolLayout

__all__ = ["MOST_STOCK_POSITIONS", "stock_positions"]

MOST_STOCK_POSITIONS = 3


def stock_positions(layout: PoolLayout, request: PlacementRequest, *, num_tokens: int) -> tuple[int, ...]:
    """Return where stock vLLM would keep states of a prompt of ``num_tokens`` tokens, ascending.

    >>> layout = PoolLayout(num_blocks=9, block_tokens=64, match_tokens=16, kv_groups=(3,), state_groups=(0,))
    >>> request = PlacementRequest(num_tokens=256, overlap_depth=100, resident_kv_tokens=64, grid=16)
    >>> stock_positions(layout, request, num_tokens=256)
    (64, 192, 240)
    """
    block_tokens = layout.block_tokens
    last = num_tokens - 1
    shared = request.overlap_depth // block_tokens * block_tokens
    resident = request.resident_kv_tokens // block_tokens * block_tokens
    if layout.kv_groups and shared - resident > block_tokens:
        # What lies behind was evicted, or never had KV: vLLM does not see that it was shared.
        shared = resident
    positions = {
        shared,
        last // block_tokens * block_tokens,
        last // layout.grid_tokens * layout.grid_tokens,
    }
    return tuple(sorted(at for at in positions if request.resume_position < at <= last))
