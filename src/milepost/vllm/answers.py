"""Keeps states inside answers: they exist anyway, and who asks on resumes there."""

from collections.abc import Callable, Sequence
from typing import final

from milepost.vllm.checkpoint_cache import CheckpointCache
from milepost.vllm.counts import CheckpointCounts
from milepost.vllm.layout import PoolLayout
from milepost.vllm.pool import BlockMemory
from milepost.vllm.prompt_blocks import PromptBlocks, hash_keys
from milepost.vllm.request_state import RequestState
from milepost.vllm.stops import StopPlanner

__all__ = ["AnswerKeeper"]


@final
class AnswerKeeper:
    """See the module.

    Args:
        cache: Of the pool's checkpoints.
        memory: The pool.
        layout: How caches lie in it.
        stops: Says whether there is room for a state.
        counts: What is kept is counted there.
        has_state: Whether the state of a request, by its id, at a block boundary can still be kept.
    """

    def __init__(
        self,
        cache: CheckpointCache,
        *,
        memory: BlockMemory,
        layout: PoolLayout,
        stops: StopPlanner,
        counts: CheckpointCounts,
        has_state: Callable[[str, int], bool],
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._layout = layout
        self._stops = stops
        self._counts = counts
        self._has_state = has_state

    def keep(
        self, request_id: str, request: RequestState, block_hashes: Sequence[bytes], num_tokens: int
    ) -> None:
        """Where the answer of a request of ``num_tokens`` tokens has just reached a block boundary, promise
        the state there, if that is worth it.
        """
        boundary = num_tokens // self._layout.block_tokens * self._layout.block_tokens
        if not request.answer_reaches(boundary) or not self._has_state(request_id, boundary):
            return
        hashed = request.kv_hashed // self._layout.block_tokens * self._layout.block_tokens
        prompt = PromptBlocks(block_hashes, self._layout, self._memory)
        if hashed and not self._memory.holds_kv(prompt.ending(hashed)):
            # The KV of the prompt was evicted, and its blocks are not given their hashes again.
            return
        if self._stops.may_keep_answer():
            self._promise(request, prompt, boundary)

    def _promise(self, request: RequestState, prompt: PromptBlocks, boundary: int) -> None:
        cache = self._cache.current
        keys = hash_keys(prompt.hashes, boundary, self._layout.match_tokens)
        with self._memory.deferred():
            stored = cache.extend(request.lease, keys, prompt)
        if not stored:
            return
        request.stops, request.kv_limit, request.kv_hashed = (stored,), stored, stored
        self._counts.answers += 1
        with cache.acquire(keys, num_tokens=boundary + 1) as lease:
            if lease.checkpoint is not None:
                self._cache.following.note_kept(lease.checkpoint, is_extra=True)
