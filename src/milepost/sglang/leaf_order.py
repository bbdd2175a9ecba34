"""In which order the ends of SGLang's tree give up their KV.

SGLang sorts all of them anew whenever it needs KV. This order is kept from one walk to the next. What is new
is ranked, and what comes to the top; of the rest a few with each batch, those that were ranked longest ago.
So a walk takes about as long for a thousand ends as for ten.
"""

from collections.abc import Callable, Set
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Protocol, final

__all__ = ["Leaf", "LeafOrder"]

# With each batch. With 200 leaves, all of them within twelve batches.
_RANKED_AHEAD = 16
# Heaps so small are not worth clearing.
_FEW = 64


class Leaf(Protocol):
    """An end of the tree."""

    id: int


@final
class LeafOrder:
    """See the module.

    Args:
        priority: What a leaf is ordered by, the least first. Ids decide between equals, so that all ranks of
            a model decide alike.
    """

    def __init__(self, priority: Callable[[Any], tuple[float, ...]]) -> None:
        self._priority = priority
        # The latest entry of each leaf, those ranked longest ago first. Other entries of the heap are dead.
        self._entries: dict[Leaf, tuple[tuple[float, ...], int, Leaf]] = {}
        self._heap: list[tuple[tuple[float, ...], int, Leaf]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def update(self, leaves: Set[Leaf]) -> None:
        """Rank what is new among ``leaves``. O(log leaves) for each of those, and a difference of sets."""
        # In the order of their ids: ranking may change what others are worth, and a set has its own order.
        for leaf in sorted(leaves - self._entries.keys(), key=_id):
            self.rank(leaf)
        if len(self._heap) > 2 * len(self._entries) + _FEW:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def rank_ahead(self, leaves: Set[Leaf]) -> None:
        """Do as :meth:`update`, and rank a few again, as long as nobody waits. O(log leaves) for each."""
        self.update(leaves)
        for leaf in list(islice(self._entries, _RANKED_AHEAD)):
            if leaf in leaves:
                self.rank(leaf)
            else:
                del self._entries[leaf]

    def rank(self, leaf: Leaf) -> None:
        """Rank a leaf, or rank it anew."""
        self._entries.pop(leaf, None)
        entry = self._entries[leaf] = (self._priority(leaf), leaf.id, leaf)
        heappush(self._heap, entry)

    def forget(self, leaf: Leaf) -> None:
        """Have ``leaf`` be new to the next walk: its worth has fallen. Harmless where it is unknown."""
        self._entries.pop(leaf, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._entries.clear()
        self._heap.clear()

    def pop(self, leaves: Set[Leaf]) -> Any | None:
        """Return the first of ``leaves``, and forget it; None where no more are known."""
        heap, entries = self._heap, self._entries
        while heap:
            entry = heap[0]
            leaf = entry[2]
            if entries.get(leaf) is not entry:
                heappop(heap)
            elif leaf not in leaves:
                heappop(heap)
                del entries[leaf]
            elif self._priority(leaf) != entry[0]:
                self.rank(leaf)
            else:
                heappop(heap)
                del entries[leaf]
                return leaf
        return None


def _id(leaf: Leaf) -> int:
    return leaf.id
