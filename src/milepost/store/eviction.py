"""Which checkpoint goes when memory is needed.

A policy sorts checkpoints into *cells* and ranks them by their *worth* inside a cell; each cell has a
*scale*, which may change at any time. The checkpoint with the least ``scale * worth`` is evicted first. So
what a checkpoint is worth now can follow a clock (its age, the price of memory) without ranking it again:
that happens only where its own circumstances change.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from milepost.reuse import Sighting
from milepost.store.node import Checkpoint, Node
from milepost.store.tree import Passage

__all__ = ["KV_CELL", "STATE_CELL", "EvictionOrder", "EvictionPolicy", "Recency", "Reranking"]

FloatArray = npt.NDArray[np.float64]

# Worth inside the cell, serial (so that ties go to the oldest, and no checkpoints are compared), checkpoint.
_Rank: TypeAlias = tuple[float, int, Checkpoint]
# Worth and serial of the least, a running number (so that no groups are compared), and the group.
_Entry: TypeAlias = "tuple[float, int, int, _Group]"
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
        moved: Prompts that belong to another of their cells now, with what they answer for.
        everything: All are to be ranked again.
    """

    changed: Sequence[Checkpoint] = ()
    moved: Sequence[tuple[Sighting, int]] = ()
    everything: bool = False


NOTHING_CHANGED = Reranking()


def _nothing() -> None:
    """Take back that nothing was learned."""


class EvictionPolicy(ABC):
    """Ranks checkpoints. See the module."""

    #: Whether worth depends on the neighbours of a checkpoint and on the memory that it holds alone.
    weighs_neighbours: bool = False

    #: Cells below this one are those of prompts: what ranks there moves to another with the prompt that
    #: answers for it.
    num_prompt_cells: int = 0

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

    def note_prolonged(self, sighting: Sighting) -> Callable[[], None]:
        """Learn that a prompt seen before is longer by now: its answer goes on. Return what takes that back,
        to be called at once, when the prompt has its old length again.
        """
        return _nothing

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


class _Group:
    """Checkpoints that change their cell together. One entry in the heap of that cell stands for them all: it
    is worth what the least of them is, or less.
    """

    __slots__ = ("cell", "entry", "ranks", "sighting")

    def __init__(self, cell: int, sighting: Sighting | None = None) -> None:
        self.cell = cell
        self.sighting = sighting
        self.ranks: dict[int, _Rank] = {}
        self.entry: _Entry | None = None


class EvictionOrder:
    """The checkpoints that may be evicted, in groups, and the groups in a heap for each cell.

    In the cells of prompts, what ranks with one prompt is a group; anything else is a group of its own. What
    leaves a heap stays in it until it comes to the top or makes up half of it. So entering, leaving and
    moving all of a prompt are O(log n) amortised. The least is found in O(cells), and in O(checkpoints of a
    prompt) where the least of that prompt has left or is worth more now.
    """

    def __init__(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        self._num_prompt_cells = policy.num_prompt_cells
        num_cells = policy.scales.size
        self._heaps: list[list[_Entry]] = [[] for _ in range(num_cells)]
        # The worth at the top of each heap, whether or not that has left; and times the cell's scale.
        self._least = np.full(num_cells, np.inf)
        self._scaled_least = np.full(num_cells, np.inf)
        self._scales = policy.scales.copy()
        self._scales_version = policy.scales_version
        self._num_left = [0] * num_cells
        self._num_listed = 0
        # By serial; and those of prompts.
        self._group_of: dict[int, _Group] = {}
        self._prompts: dict[Sighting, _Group] = {}

    def __len__(self) -> int:
        return len(self._group_of)

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.serial in self._group_of

    def enter(self, checkpoint: Checkpoint, held_bytes: int) -> bool:
        """Rank ``checkpoint`` among those that may be evicted, or rank it anew; return whether that changed
        anything.
        """
        return self.place(checkpoint, *self._policy.rank(checkpoint, held_bytes))

    def place(self, checkpoint: Checkpoint, cell: int, worth: float) -> bool:
        """Do as :meth:`enter`, where the rank is known."""
        serial = checkpoint.serial
        before = self._group_of.get(serial)
        group = self._home(checkpoint, cell, before)
        if before is group and group.cell == cell and group.ranks[serial][0] == worth:
            return False
        self._move(group, cell)
        self._join(group, (worth, serial, checkpoint))
        return True

    def rank_of(self, checkpoint: Checkpoint) -> tuple[int, float]:
        """Return the cell of ``checkpoint``, which has to be ranked, and its worth inside it."""
        group = self._group_of[checkpoint.serial]
        return group.cell, group.ranks[checkpoint.serial][0]

    def leave(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint``, or forget it after its eviction; harmless where it is not ranked."""
        group = self._group_of.pop(checkpoint.serial, None)
        if group is None:
            return
        del group.ranks[checkpoint.serial]
        if not group.ranks:
            self._unlist(group)
            if group.sighting is not None:
                del self._prompts[group.sighting]

    def detach(self, checkpoint: Checkpoint) -> None:
        """Leave ``checkpoint``, if it is ranked, where it is until its prompt moves: that is another now."""
        group = self._group_of.get(checkpoint.serial)
        if group is not None and group.sighting is not None:
            self._join(_Group(group.cell), group.ranks[checkpoint.serial])

    def move(self, sighting: Sighting, cell: int) -> None:
        """Move what a prompt answers for and ranks in a cell of prompts to another of them, at its worth."""
        group = self._prompts.get(sighting)
        if group is not None:
            self._move(group, cell)
            if len(group.ranks) == len(sighting.held):
                return
        for checkpoint in sighting.held.values():
            before = self._group_of.get(checkpoint.serial)
            if before is not None and before is not group and before.cell < self._num_prompt_cells:
                group = self._home(checkpoint, cell, before)
                self._join(group, before.ranks[checkpoint.serial])

    def checkpoints(self) -> list[Checkpoint]:
        """Return all that are ranked. O(n)."""
        return [group.ranks[serial][2] for serial, group in self._group_of.items()]

    def first(self, cell: int | None = None) -> tuple[Checkpoint, float] | None:
        """Return the next victim and what it is worth; of one ``cell``, if that has any."""
        if cell is not None:
            self._settle(cell)
            if self._heaps[cell]:
                _, serial, _, group = self._heaps[cell][0]
                return group.ranks[serial][2], float(self._least[cell])
        if not self._group_of:
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
            rank = _rank_of(entry)
            if rank is not None:
                return rank[2], float(worths[least])
            self._settle(least)

    def _home(self, checkpoint: Checkpoint, cell: int, before: _Group | None) -> _Group:
        """Return the group for ``checkpoint`` in ``cell``: its prompt's or its own, which may be new."""
        if cell >= self._num_prompt_cells:
            return before if before is not None and before.sighting is None else _Group(cell)
        sighting = checkpoint.sighting
        assert sighting is not None
        group = self._prompts.get(sighting)
        if group is None:
            group = self._prompts[sighting] = _Group(cell, sighting)
        return group

    def _join(self, group: _Group, rank: _Rank) -> None:
        """Put a checkpoint with this rank into ``group``, out of any other that it is in."""
        worth, serial, checkpoint = rank
        if self._group_of.get(serial) is not group:
            self.leave(checkpoint)
            self._group_of[serial] = group
        group.ranks[serial] = rank
        if group.entry is None or (worth, serial) < group.entry[:2]:
            self._unlist(group)
            self._list(group, worth, serial)

    def _move(self, group: _Group, cell: int) -> None:
        entry = group.entry
        if group.cell != cell and entry is not None:
            self._unlist(group)
            group.cell = cell
            self._list(group, entry[0], entry[1])

    def _list(self, group: _Group, worth: float, serial: int) -> None:
        """Enter a group in the heap of its cell."""
        self._num_listed += 1
        entry = group.entry = (worth, serial, self._num_listed, group)
        heap = self._heaps[group.cell]
        heappush(heap, entry)
        if heap[0] is entry:
            self._set_least(group.cell)

    def _unlist(self, group: _Group) -> None:
        if group.entry is not None:
            group.entry = None
            self._count_left(group.cell)

    def _settle(self, cell: int) -> None:
        """Bring to the top of a heap what really is its first."""
        heap = self._heaps[cell]
        while heap and _rank_of(heap[0]) is None:
            entry = heappop(heap)
            group = entry[3]
            if group.entry is not entry:
                self._num_left[cell] -= 1
                continue
            worth, serial, _ = min(group.ranks.values())
            self._list(group, worth, serial)
        self._set_least(cell)

    def _count_left(self, cell: int) -> None:
        self._num_left[cell] += 1
        heap = self._heaps[cell]
        if 2 * self._num_left[cell] > len(heap) + _FEW:
            heap[:] = [entry for entry in heap if entry[3].entry is entry]
            heapify(heap)
            self._num_left[cell] = 0
            self._set_least(cell)

    def _set_least(self, cell: int) -> None:
        heap = self._heaps[cell]
        least = heap[0][0] if heap else math.inf
        self._least[cell] = least
        self._scaled_least[cell] = least * self._scales[cell]


def _rank_of(entry: _Entry) -> _Rank | None:
    """Return the checkpoint that ``entry`` stands for and its rank, if that is still its group's least."""
    worth, serial, _, group = entry
    rank = group.ranks.get(serial) if group.entry is entry else None
    return rank if rank is not None and rank[0] == worth else None
