"""The order of evictions: groups of checkpoints that move together, and a heap of groups for each cell."""

import math
from heapq import heapify, heappop, heappush
from typing import TypeAlias, final

import numpy as np

from milepost.store.checkpoint import Checkpoint
from milepost.store.eviction_policy import EvictionPolicy
from milepost.store.seen import SeenPrompt
from milepost.untracked import untracked

__all__ = ["EvictionOrder", "Group"]

# Worth and serial of the least, a running number (so that no groups are compared), and the group.
_Entry: TypeAlias = "tuple[float, int, int, Group]"
# Heaps so small are not worth clearing.
_FEW = 64


@final
class Group:
    """Checkpoints that change their cell together. One entry in the heap of that cell stands for them all: it
    is worth what the least of them is, or less.

    Attributes:
        cell: Where it ranks.
        owner: The prompt that owns them all; None for a checkpoint by itself.
        members: The checkpoints, by serial.
        entry: Its entry in the heap; None while it has none.
    """

    __slots__ = ("cell", "entry", "members", "owner")

    def __init__(self, cell: int, owner: SeenPrompt | None = None) -> None:
        self.cell = cell
        self.owner = owner
        self.members: dict[int, Checkpoint] = untracked({})
        self.entry: _Entry | None = None
        untracked(self)

    def take_apart(self) -> None:
        """Break the cycles that it is part of."""
        self.entry = None
        for checkpoint in self.members.values():
            checkpoint.group = None
        self.members.clear()
        if self.owner is not None:
            self.owner.group = None
            self.owner = None


@final
class EvictionOrder:
    """The checkpoints that may be evicted, in groups, and the groups in a heap for each cell.

    In the cells of prompts, what ranks with one prompt is a group; anything else is a group of its own.
    Deletion is lazy: dead entries stay in a heap until they surface or make up half of it. So entering,
    leaving and moving all of a prompt are O(log n) amortised. The least is found in O(cells), and in
    O(checkpoints of a prompt) where the least of that prompt has left or is worth more now.
    """

    def __init__(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        self._num_prompt_cells = policy.num_prompt_cells
        num_cells = policy.scales.size
        self._heaps: list[list[_Entry]] = [untracked([]) for _ in range(num_cells)]
        # The worth at the top of each heap, whether or not that has left; and times the cell's scale.
        self._least = np.full(num_cells, np.inf)
        self._scaled_least = np.full(num_cells, np.inf)
        self._scales = policy.scales.copy()
        self._scales_version = policy.scales_version
        self._num_left = [0] * num_cells
        self._num_listed = 0
        self._num_ranked = 0

    def __len__(self) -> int:
        return self._num_ranked

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.group is not None

    def enter(self, checkpoint: Checkpoint, freed_bytes: int) -> bool:
        """Rank ``checkpoint`` among those that may be evicted, or rank it anew; return whether that changed
        anything.
        """
        return self.place(checkpoint, *self._policy.rank(checkpoint, freed_bytes))

    def place(self, checkpoint: Checkpoint, cell: int, worth: float) -> bool:
        """Do as :meth:`enter`, where the rank is known."""
        before = checkpoint.group
        group = self._home(checkpoint, cell, before)
        if before is group and group.cell == cell and checkpoint.worth == worth:
            return False
        self._move(group, cell)
        self._join(group, checkpoint, worth)
        return True

    def rank_of(self, checkpoint: Checkpoint) -> tuple[int, float]:
        """Return the cell of ``checkpoint``, which has to be ranked, and its worth inside it."""
        assert checkpoint.group is not None
        return checkpoint.group.cell, checkpoint.worth

    def leave(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint``, or forget it after its eviction; harmless where it is not ranked."""
        group = checkpoint.group
        if group is None:
            return
        checkpoint.group = None
        self._num_ranked -= 1
        del group.members[checkpoint.serial]
        if not group.members:
            self._unlist(group)
            if group.owner is not None:
                group.owner.group = None
                group.owner = None

    def detach(self, checkpoint: Checkpoint) -> None:
        """Leave ``checkpoint``, if it is ranked, where it is until its owner moves: that is another now."""
        group = checkpoint.group
        if group is not None and group.owner is not None:
            self._join(Group(group.cell), checkpoint, checkpoint.worth)

    def move(self, prompt: SeenPrompt, cell: int) -> None:
        """Move what a prompt owns and ranks in a cell of prompts to another of them, at its worth."""
        group = prompt.group
        if group is not None:
            self._move(group, cell)
            if len(group.members) == len(prompt.owned):
                return
        for checkpoint in prompt.owned.values():
            before = checkpoint.group
            if before is not None and before is not group and before.cell < self._num_prompt_cells:
                group = self._home(checkpoint, cell, before)
                self._join(group, checkpoint, checkpoint.worth)

    def checkpoints(self) -> list[Checkpoint]:
        """Return all that are ranked. O(n)."""
        entries = (entry for heap in self._heaps for entry in heap)
        groups = (entry[3] for entry in entries if entry[3].entry is entry)
        return [checkpoint for group in groups for checkpoint in group.members.values()]

    def first(self, cell: int | None = None) -> tuple[Checkpoint, float] | None:
        """Return the next victim and what it is worth; of one ``cell``, if that has any."""
        if cell is not None:
            self._pop_dead(cell)
            if self._heaps[cell]:
                _, serial, _, group = self._heaps[cell][0]
                return group.members[serial], float(self._least[cell])
        if not self._num_ranked:
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
            first = _least_of(self._heaps[least][0])
            if first is not None:
                return first, float(worths[least])
            self._pop_dead(least)

    def _home(self, checkpoint: Checkpoint, cell: int, before: Group | None) -> Group:
        """Return the group for ``checkpoint`` in ``cell``: its owner's or its own, which may be new."""
        if cell >= self._num_prompt_cells:
            return before if before is not None and before.owner is None else Group(cell)
        owner = checkpoint.owner
        assert owner is not None
        if owner.group is None:
            owner.group = Group(cell, owner)
        return owner.group

    def _join(self, group: Group, checkpoint: Checkpoint, worth: float) -> None:
        """Put a checkpoint of this worth into ``group``, out of any other that it is in."""
        serial = checkpoint.serial
        if checkpoint.group is not group:
            self.leave(checkpoint)
            checkpoint.group = group
            self._num_ranked += 1
            group.members[serial] = checkpoint
            untracked(group.members)
        checkpoint.worth = worth
        if group.entry is None or (worth, serial) < group.entry[:2]:
            self._unlist(group)
            self._list(group, worth, serial)

    def _move(self, group: Group, cell: int) -> None:
        entry = group.entry
        if group.cell != cell and entry is not None:
            self._unlist(group)
            group.cell = cell
            self._list(group, entry[0], entry[1])

    def _list(self, group: Group, worth: float, serial: int) -> None:
        """Enter a group in the heap of its cell."""
        self._num_listed += 1
        entry = group.entry = untracked((worth, serial, self._num_listed, group))
        heap = self._heaps[group.cell]
        heappush(heap, entry)
        if heap[0] is entry:
            self._set_least(group.cell)

    def _unlist(self, group: Group) -> None:
        if group.entry is not None:
            group.entry = None
            self._count_left(group.cell)

    def _pop_dead(self, cell: int) -> None:
        """Bring to the top of a heap what really is its first."""
        heap = self._heaps[cell]
        while heap and _least_of(heap[0]) is None:
            entry = heappop(heap)
            group = entry[3]
            if group.entry is not entry:
                self._num_left[cell] -= 1
                continue
            self._list(group, *min((each.worth, each.serial) for each in group.members.values()))
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


def _least_of(entry: _Entry) -> Checkpoint | None:
    """Return the checkpoint that ``entry`` stands for, if that is still its group's least."""
    worth, serial, _, group = entry
    member = group.members.get(serial) if group.entry is entry else None
    return member if member is not None and member.worth == worth else None
