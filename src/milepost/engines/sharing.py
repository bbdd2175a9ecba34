"""Requests that begin alike and arrive together: what they share is computed once.

The first of them captures a state where each of the others parts from it; the others wait for it, where that
takes less than computing what they share themselves.
"""

from collections.abc import Iterable

from milepost.engines.cuts import Cuts
from milepost.engines.generation import Generation
from milepost.engines.recall import Recall
from milepost.errors import MilepostError
from milepost.tokens import TokenArray, common_prefix_length

__all__ = ["Sharing"]


class Sharing:
    """See the module.

    Args:
        recall: What the cache has already.
        cuts: Where a prompt may be cut.
        segment_tokens: KV is stored in pieces of this many.
    """

    def __init__(self, recall: Recall, *, cuts: Cuts, segment_tokens: int) -> None:
        self._recall = recall
        self._cuts = cuts
        # Without states, whole pieces of KV are what can be resumed from.
        self._is_stateless = recall.cache.footprint.is_stateless
        self._step = segment_tokens if self._is_stateless else cuts.grid

    def prepare(self, generation: Generation, others: Iterable[Generation]) -> None:
        """Tell a request that begins where those that have not begun part from it. O(tokens compared)."""
        partings = {
            self._parting(other, generation)
            for other in others
            if other is not generation and not other.is_done and not other.has_begun
        }
        generation.prompt.parting_positions = tuple(sorted(partings - {0}))

    def waits(self, generation: Generation, running: Iterable[Generation]) -> bool:
        """Return whether a request that has not begun had better wait for one that is under way, which will
        capture a state where the two part.
        """
        if generation.has_begun:
            return False
        leaders = [(self._shared(generation, other), other.prefill) for other in running]
        found = [(shared, prefill) for shared, prefill in leaders if shared and prefill is not None]
        if not found:
            return False
        try:
            reach = self._recall.reach(generation.prompt.new_claim())
        except MilepostError:
            return False  # it will hear of that in its own turn
        for shared, prefill in found:
            rest = prefill.num_tokens - max(shared, prefill.live.position)
            if shared - reach >= max(1, rest):
                prefill.plan_also(shared)
                return True
        return False

    def _shared(self, generation: Generation, leader: Generation) -> int:
        """Return how far ``generation`` can go on from what ``leader`` is computing, 0 for not at all."""
        prefill = leader.prefill
        if prefill is None:
            return 0
        parting = self._parting(generation, leader)
        if self._is_stateless or parting > prefill.live.position:
            return parting
        return max((each for each in prefill.planned if each <= parting), default=0)

    def _parting(self, generation: Generation, leader: Generation) -> int:
        """Return the deepest position at which ``generation`` can go on from what ``leader`` computes."""
        mine, its = generation.request, leader.request
        return self.parting(mine.tokens, its.tokens) if mine.tenant == its.tenant else 0

    def parting(self, one: TokenArray, other: TokenArray) -> int:
        """Return the deepest position at which either of two prompts can go on from what the other computes,
        0 for none. O(tokens shared).
        """
        if not self._recall.may_place:
            return 0
        shared = common_prefix_length(one, other)
        usable = min(shared, one.size - self._cuts.least, other.size - self._cuts.least)
        return max(0, usable) // self._step * self._step
