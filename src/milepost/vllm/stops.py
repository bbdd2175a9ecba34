"""Where the prefill of a prompt stops for a checkpoint: what that costs, what has room, and who decides."""

from collections.abc import Callable
from typing import final

from milepost.lease import Lease
from milepost.prefix_cache import PrefixCache
from milepost.vllm.layout import PoolLayout
from milepost.vllm.leading import LedEviction
from milepost.vllm.pool import BlockMemory
from milepost.vllm.stock import MOST_STOCK_POSITIONS, stock_positions

__all__ = ["StopPlanner"]


@final
class StopPlanner:
    """Plans prompts of one cache.

    Args:
        cache: Whose policy plans.
        memory: The pool.
        layout: How caches lie in it.
        eviction: Says which rule leads.
        max_stops: Most stops of a prompt beside those that vLLM makes by itself.
        stop_tokens: What a stop costs now, in tokens computed.
    """

    def __init__(
        self,
        cache: PrefixCache,
        *,
        memory: BlockMemory,
        layout: PoolLayout,
        eviction: LedEviction,
        max_stops: int,
        stop_tokens: Callable[[], int],
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._layout = layout
        self._eviction = eviction
        self._most_states = max_stops + MOST_STOCK_POSITIONS
        self._stop_tokens = stop_tokens

    def plan(self, lease: Lease, num_tokens: int) -> tuple[int, ...]:
        """Return where states of a prompt of ``num_tokens`` tokens are to be kept, ascending. Where stock
        vLLM stops too, a stop costs nothing beside it. So with memory to spare, those are always made; others
        only where they save more than they cost. Where memory is short, the rule that leads decides.
        """
        layout, cache, leads = self._layout, self._cache, self._eviction.is_led_by_learning
        num_new_tokens = num_tokens - lease.resume_position
        num_spare_blocks = self.note_room(num_new_tokens)
        given = stock_positions(layout, lease.request, num_tokens=num_tokens)
        if layout.blocks_of_plan(given, num_new_tokens) > num_spare_blocks:
            return cache.plan(lease, capture_tokens=self._stop_tokens()).positions if leads else given
        planned = cache.plan(lease, given_positions=given, capture_tokens=self._stop_tokens()).positions
        if leads or layout.blocks_of_plan(planned, num_new_tokens) <= num_spare_blocks:
            return planned
        return given

    def may_keep_answer(self) -> bool:
        """Return whether the state of an answer may be kept at a block boundary: where it takes the place of
        others, that is a matter of the learned rule.
        """
        layout = self._layout
        num_blocks = len(layout.state_groups) + len(layout.kv_groups)
        return self.note_room(layout.block_tokens) >= num_blocks or self._eviction.is_led_by_learning

    def note_room(self, num_new_tokens: int) -> int:
        """Tell the cache what it may take now: what it has, and the clean blocks that a request of so many
        new tokens can use beside its running state. Return how many those are.
        """
        layout = self._layout
        running = len(layout.state_groups)
        useful = layout.blocks_of_kv(num_new_tokens) + self._most_states * layout.blocks_of_state(1)
        spare = max(0, self._memory.num_clean(useful + running) - running)
        self._cache.resize(self._cache.stored_bytes + spare * layout.block_tokens)
        self._memory.clean()
        return spare
