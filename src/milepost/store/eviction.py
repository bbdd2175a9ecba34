"""Which checkpoint goes when memory is needed.

A policy sorts checkpoints into *cells* and ranks them by their *worth* inside a cell; each cell has a
*scale*, which may change at any time. The checkpoint with the least ``scale * worth`` is evicted first. So
what a checkpoint is worth now can follow a clock (its age, the price of memory) without ranking it again:
that happens only where its own circumstances change.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from milepost.store.node import Checkpoint, Node
from milepost.store.tree import Passage

__all__ = ["KV_CELL", "STATE_CELL", "EvictionOrder", "EvictionPolicy", "Recency", "Reranking"]

FloatArray = npt.NDArray[np.float64]

# Worth, serial (so that ties go to the oldest, and no checkpoints are compared), cell and checkpoint.
_Entry: TypeAlias = tuple[float, int, int, Checkpoint]
# Heaps so small are not worth clearing.
_FEW = 64
# Cells of a policy that ranks what frees KV apart from what frees a state alone, where the budget is split.
STATE_CELL, KV_CELL = 0, 1
_ONE_CELL = np.ones(1)
_ONE_CELL.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Reranking:
    """What a request has changed.

    Attributes:
        changed: Checkpoints to be ranked again. Where one became worth more, that can wait: whatever is about
            to be evicted is ranked again first.
        moved: Checkpoints of the same worth that belong to another cell now, if they are in one of the first
            ``movable_cells``.
        movable_cells: See ``moved``.
        everything: All are to be ranked again.
    """

    changed: Sequence[Checkpoint] = ()
    moved: Sequence[tuple[Checkpoint, int]] = ()
    movable_cells: int = 0
    everything: bool = False


NOTHING_CHANGED = Reranking()


class EvictionPolicy(ABC):
    """Ranks checkpoints. See the module."""

    #: Whether worth depends on the neighbours of a checkpoint and on the memory that it holds alone.
    weighs_neighbours: bool = False

    #: Changes whenever the scales do.
    scales_version: int = 0

    @property
    def scales(self) -> FloatArray:
        """Scale of each cell, above 0, shape ``[num_cells]``."""
        return _ONE_CELL

    def worths(self, least: FloatArray) -> FloatArray | None:
        """Return what the first of each cell is worth now, shape ``[num_cells]``, infinite for an empty cell;
        None where that is ``scale * worth``. ``least`` is its worth inside the cell.
        """
        return None

    @abstractmethod
    def rank(self, checkpoint: Checkpoint, held_bytes: int) -> tuple[int, float]:
        """Return the cell of ``checkpoint`` and its worth inside it; ties go to the oldest.

        ``held_bytes`` are those that its eviction frees; its own where neighbours are not weighed.
        """

    def note_request(self, passage: Passage) -> Reranking:
        """Learn from a request that was just served; return what has changed by it."""
        return NOTHING_CHANGED

    def note_forgotten(self, node: Node) -> None:  # noqa: B027
        """Learn that ``node``, mere history, is remembered no more."""

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:  # noqa: B027
        """Learn that ``checkpoint`` was evicted, when it was worth ``scale * worth``."""


class Recency(EvictionPolicy):
    """Least recently used. Using a checkpoint refreshes it alone, not the ones before it on the same prompt:
    those are kept only as long as requests really part there.
    """

    def rank(self, checkpoint: Checkpoint, held_bytes: int) -> tuple[int, float]:
        """Return the tick of the last use."""
        return 0, checkpoint.last_used


class EvictionOrder:
    """The checkpoints that may be evicted, in a heap for each cell.

    What leaves stays in its heap until it comes to the top or makes up half of it. So entering and leaving
    are O(log n) amortised, and the least is found in O(cells).
    """

    def __init__(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        num_cells = policy.scales.size
        self._heaps: list[list[_Entry]] = [[] for _ in range(num_cells)]
        # The worth at the top of each heap, whether or not that has left; and times the cell's scale.
        self._least = np.full(num_cells, np.inf)
        self._scaled_least = np.full(num_cells, np.inf)
        self._scales = policy.scales.copy()
        self._scales_version = policy.scales_version
        self._num_left = [0] * num_cells
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.serial in self._entries

    def enter(self, checkpoint: Checkpoint, held_bytes: int) -> None:
        """Rank ``checkpoint`` among those that may be evicted, or rank it anew."""
        cell, worth = self._policy.rank(checkpoint, held_bytes)
        serial = checkpoint.serial
        before = self._entries.get(serial)
        if before is not None:
            if before[0] == worth and before[2] == cell:
                return
            self._count_left(before[2])
        self._push((worth, serial, cell, checkpoint))

    def _push(self, entry: _Entry) -> None:
        _, serial, cell, _ = entry
        self._entries[serial] = entry
        heap = self._heaps[cell]
        heappush(heap, entry)
        if heap[0] is entry:
            self._set_least(cell)

    def move(self, checkpoint: Checkpoint, cell: int, *, movable_cells: int) -> None:
        """Move ``checkpoint``, of the worth it has, to another cell; harmless where it is not ranked, or in
        none of the first ``movable_cells``.
        """
        before = self._entries.get(checkpoint.serial)
        if before is not None and movable_cells > before[2] != cell:
            self._count_left(before[2])
            self._push((before[0], before[1], cell, checkpoint))

    def leave(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint``, or forget it after its eviction; harmless where it is not ranked."""
        entry = self._entries.pop(checkpoint.serial, None)
        if entry is not None:
            self._count_left(entry[2])

    def checkpoints(self) -> list[Checkpoint]:
        """Return all that are ranked. O(n)."""
        return [entry[3] for entry in self._entries.values()]

    def first(self, cell: int | None = None) -> tuple[Checkpoint, float] | None:
        """Return the next victim and what it is worth; of one ``cell``, if that has any."""
        if cell is not None:
            self._settle(cell)
            if self._heaps[cell]:
                return self._heaps[cell][0][3], float(self._least[cell])
        if not self._entries:
            return None
        if self._scales_version != self._policy.scales_version:
            self._scales_version = self._policy.scales_version
            self._scales = self._policy.scales.copy()
            self._scaled_least = self._least * self._scales
        while True:
            worths = self._policy.worths(self._least)
            if worths is None:
                worths = self._scaled_least
            least = int(worths.argmin())
            entry = self._heaps[least][0]
            if self._entries.get(entry[1]) is entry:
                return entry[3], float(worths[least])
            self._settle(least)

    def _settle(self, cell: int) -> None:
        """Take from the top of a heap what has left."""
        heap, entries = self._heaps[cell], self._entries
        while heap and entries.get(heap[0][1]) is not heap[0]:
            heappop(heap)
            self._num_left[cell] -= 1
        self._set_least(cell)

    def _count_left(self, cell: int) -> None:
        self._num_left[cell] += 1
        heap = self._heaps[cell]
        if 2 * self._num_left[cell] > len(heap) + _FEW:
            heap[:] = [entry for entry in heap if self._entries.get(entry[1]) is entry]
            heapify(heap)
            self._num_left[cell] = 0
            self._set_least(cell)

    def _set_least(self, cell: int) -> None:
        heap = self._heaps[cell]
        least = heap[0][0] if heap else math.inf
        self._least[cell] = least
        self._scaled_least[cell] = least * self._scales[cell]
