"""A simulated worker with a CPU tier: what a chunk holds is written down, and a load brings back just that.

vLLM's own connector decides what is stored and loaded, and where. So a chunk that was taken too early, or
that is loaded for another prefix, is caught when the request reads it.
"""

import mmap
import random
from functools import partial

from bare_scheduler import BareEngine
from benchmarks.vllm.servers.transfers import Piece, Transfers
from drafting import DraftingEngine, DraftingWorker
from simulated_worker import SimulatedWorker
from vllm.config import KVTransferConfig

__all__ = ["OffloadingWorker", "engine_with_tier"]

# Of a block of one group, for each of its tokens; see `bare_scheduler`.
_BYTES_PER_TOKEN = 128


class _WithTier:
    """What a worker with a tier does beside another one."""

    def __init__(self, kv_cache_config, *, seed, blocks_per_chunk=1, most_steps=2, **options) -> None:
        super().__init__(kv_cache_config, seed=seed, **options)
        chance = random.Random(seed + 1)
        # What each piece holds, and whether that is a state.
        self.tier: dict[tuple[int, int], tuple[bool, object]] = {}
        self.transfers = Transfers(
            blocks_per_chunk=blocks_per_chunk,
            steps_to_take=lambda: chance.randint(0, most_steps),
            load=self._load,
            store=self._store,
        )

    def execute(self, step, requests):
        """Run one step, and what is on its way between pool and tier."""
        self.transfers.begin(step.kv_connector_metadata)
        output = super().execute(step, requests)
        output.kv_connector_output = self.transfers.finish(step.kv_connector_metadata)
        return output

    def _load(self, piece: Piece) -> None:
        is_state, held = self.tier[piece.chunk, piece.part]
        if is_state is not (piece.group in self._state_groups):
            # KV where a state is expected is no state of anything, nor the other way round.
            self._states[piece.block] = self._kv[piece.block] = -1
        elif is_state:
            self._put_state(piece.block, held)
        else:
            self._kv[piece.block] = held

    def _store(self, piece: Piece) -> None:
        is_state = piece.group in self._state_groups
        held = self._state(piece.block) if is_state else self._kv[piece.block].copy()
        self.tier[piece.chunk, piece.part] = is_state, held


class OffloadingWorker(_WithTier, SimulatedWorker):
    """See the module."""


class DraftingOffloadingWorker(_WithTier, DraftingWorker):
    """The same with drafts, whose windows lie in the blocks of states too."""


def engine_with_tier(
    model,
    *,
    num_chunks,
    block_size=64,
    blocks_per_chunk=1,
    most_steps=2,
    extra_config=None,
    with_drafts=False,
    **options,
) -> BareEngine:
    """Return an engine with vLLM's OffloadingConnector and a CPU tier of ``num_chunks`` chunks.

    Args:
        model: As for ``BareEngine``.
        num_chunks: Size of the tier.
        block_size: Tokens of a block.
        blocks_per_chunk: Blocks in a chunk.
        most_steps: A transfer takes at most as many steps beside its own.
        extra_config: More of ``kv_connector_extra_config``.
        with_drafts: Whether tokens are drafted.
        options: As for ``BareEngine``, or ``DraftingEngine``.
    """
    engine_cls, worker_cls = (
        (DraftingEngine, DraftingOffloadingWorker) if with_drafts else (BareEngine, OffloadingWorker)
    )
    # vLLM makes each chunk as large as a block of all groups together, in whole pages.
    num_groups = options.get("num_state_groups", 3) + len(options.get("attention", ("full",)))
    num_pages = -(-num_groups * block_size * blocks_per_chunk * _BYTES_PER_TOKEN // mmap.PAGESIZE)
    given = {
        "cpu_bytes_to_use": num_chunks * num_pages * mmap.PAGESIZE,
        "blocks_per_chunk": blocks_per_chunk,
        **(extra_config or {}),
    }
    return engine_cls(
        model,
        block_size=block_size,
        kv_transfer_config=KVTransferConfig(
            kv_connector="OffloadingConnector", kv_role="kv_both", kv_connector_extra_config=given
        ),
        worker_cls=partial(worker_cls, blocks_per_chunk=blocks_per_chunk, most_steps=most_steps),
        **options,
    )
