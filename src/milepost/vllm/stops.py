"""Where the prefill of a prompt stops for a checkpoint: what that costs, what has room, and who decides."""

from collections.abc import Callable
from typing import final

from milepost.lease import Lease
from milepost.vllm.checkpoint_cache import CheckpointCache
from milepost.vllm.layout import PoolLayout
from milepost.vllm.placing import placed_positions
from milepost.vllm.pool import BlockMemory
from milepost.vllm.stock import (
    MOST_STOCK_POSITIONS,
    full_end,
    seen_junction,
    stock_positions,
    stopless_positions,
)

__all__ = ["StopPlanner"]


@final
class StopPlanner:
    """Plans prompts of one cache.

    Args:
        cache: Whose policy plans, and which knows who leads.
        memory: The pool.
        layout: How caches lie in it.
        max_stops: Most stops of a prompt beside those that vLLM makes by itself.
        stop_tokens: What a stop costs now, in tokens computed.
    """

    def __init__(
        self,
        cache: CheckpointCache,
        *,
        memory: BlockMemory,
        layout: PoolLayout,
        max_stops: int,
        stop_tokens: Callable[[], int],
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._layout = layout
        self._most_states = max_stops + MOST_STOCK_POSITIONS
        self._stop_tokens = stop_tokens

    def plan(
        self, lease: Lease, num_tokens: int, *, hit: int, shared: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return where states of a prompt of ``num_tokens`` tokens are to be kept, ascending, and which of
        those stock vLLM would keep. Where it stops too, a stop costs nothing beside it. So with memory to
        spare, those are always made; others only where they save more than they cost. Where memory is short,
        the rule that leads decides.

        Args:
            lease: The prompt.
            num_tokens: Its length.
            hit: Where vLLM resumes it.
            shared: Up to where vLLM sees it shared, where that is deeper.
        """
        layout, leads = self._layout, self._cache.is_led_by_learning
        num_new_tokens = num_tokens - hit
        num_spare_blocks = self.note_room(num_new_tokens, running=layout.running_blocks)
        if leads:
            shared = seen_junction(layout, lease.request)
        given = stock_positions(layout, resumed=hit, shared=shared, num_tokens=num_tokens)
        if layout.blocks_of_plan(given, num_new_tokens) > num_spare_blocks:
            free = stopless_positions(layout, num_tokens=num_tokens, resumed=hit, shared=shared)
            return (self._positions(lease, num_tokens, free=free) if leads else given), given
        planned = self._positions(lease, num_tokens, given=given)
        if leads or layout.blocks_of_plan(planned, num_new_tokens) <= num_spare_blocks:
            return planned, given
        return given, given

    def may_keep_answer(self) -> bool:
        """Return whether the state of an answer may be kept at a block boundary: where it takes the place of
        others, that is a matter of the learned rule.
        """
        layout = self._layout
        num_blocks = len(layout.state_groups) + len(layout.kv_groups)
        num_spare_blocks = self.note_room(layout.block_tokens, running=len(layout.state_groups))
        return num_spare_blocks >= num_blocks or self._cache.is_led_by_learning

    def note_room(self, num_new_tokens: int, *, running: int) -> int:
        """Tell the cache what it may take now: what it has, and the clean blocks that a request of as many
        new tokens can use beside those that it takes to run. Return how many those are.
        """
        layout = self._layout
        useful = layout.blocks_of_kv(num_new_tokens) + self._most_states * layout.blocks_of_state(1)
        spare = max(0, self._memory.num_clean(useful + running) - running)
        cache = self._cache.current
        with self._memory.deferred():
            cache.resize(cache.stored_bytes + spare * layout.block_tokens)
        return spare

    def _positions(
        self, lease: Lease, num_tokens: int, *, given: tuple[int, ...] = (), free: tuple[int, ...] = ()
    ) -> tuple[int, ...]:
        """Return where the policy places checkpoints. Closer to the end of the prompt than a drafter reads
        ahead, vLLM would end the chunk elsewhere; at its very end it does.
        """
        placed = placed_positions(
            self._cache.current, lease, given=given, free=free, stop_tokens=self._stop_tokens()
        )
        last, end = num_tokens - self._layout.rest_tokens, full_end(self._layout, num_tokens)
        return tuple(position for position in placed if position <= last or position == end)
