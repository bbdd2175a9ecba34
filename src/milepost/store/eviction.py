"""Which checkpoint goes when memory is needed.

A policy sorts checkpoints into *cells* and ranks them by their *worth* inside a cell; each cell has a *scale*,
which may change at any time. The checkpoint with the least ``scale * worth`` is evicted first. So what a
checkpoint is worth now can follow a clock (its age, the price of memory) without ranking it again: that
happens only where its own circumstances change.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from sortedcontainers import SortedList

from milepost.store.node import Checkpoint, Node
from milepost.store.tree import Passage

__all__ = ["KV_CELL", "STATE_CELL", "EvictionOrder", "EvictionPolicy", "Recency"]

FloatArray = npt.NDArray[np.float64]

# Cells of a policy that ranks states and KV-only checkpoints apart, for a store whose budget is split.
STATE_CELL, KV_CELL = 0, 1
_ONE_CELL = np.ones(1)
_ONE_CELL.flags.writeable = False


class EvictionPolicy(ABC):
    """Ranks checkpoints. See the module."""

    #: Whether worth depends on the neighbours of a checkpoint and on the memory that it holds alone.
    weighs_neighbours: bool = False

    @property
    def scales(self) -> FloatArray:
        """Scale of each cell, above 0, shape ``[num_cells]``. The policy may write to it at any time."""
        return _ONE_CELL

    @abstractmethod
    def rank(self, checkpoint: Checkpoint, held_bytes: int) -> tuple[int, float]:
        """Return the cell of ``checkpoint`` and its worth inside it; ties go to the oldest.

        ``held_bytes`` are those that its eviction frees; its own where neighbours are not weighed.
        """

    def note_request(self, passage: Passage) -> Iterable[Checkpoint]:  # noqa: ARG002
        """Learn from a request that was just served; return the checkpoints to be ranked again."""
        return ()

    def note_forgotten(self, node: Node) -> None:  # noqa: B027
        """Learn that ``node``, mere history, is remembered no more."""

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:  # noqa: B027
        """Learn that ``checkpoint`` was evicted, when it was worth ``scale * worth``."""


class Recency(EvictionPolicy):
    """Least recently used. Using a checkpoint refreshes it alone, not the ones before it on the same prompt:
    those are kept only as long as requests really part there.
    """

    def rank(self, checkpoint: Checkpoint, held_bytes: int) -> tuple[int, float]:  # noqa: ARG002
        """Return the tick of the last use."""
        return 0, checkpoint.last_used


class EvictionOrder:
    """The unpinned checkpoints. O(log n) to enter, leave and move; the least is found in O(cells)."""

    def __init__(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        num_cells = policy.scales.size
        self._cells: list[SortedList[tuple[float, int]] | None] = [None] * num_cells
        self._least = np.full(num_cells, np.inf)
        # Checkpoints that may be evicted: serial -> cell and worth.
        self.ranks: dict[int, tuple[int, float]] = {}
        self._checkpoints: dict[int, Checkpoint] = {}

    def __len__(self) -> int:
        return len(self.ranks)

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.serial in self.ranks

    def enter(self, checkpoint: Checkpoint, held_bytes: int) -> None:
        """Rank ``checkpoint`` among those that may be evicted."""
        cell, worth = self._policy.rank(checkpoint, held_bytes)
        self.ranks[checkpoint.serial] = (cell, worth)
        self._checkpoints[checkpoint.serial] = checkpoint
        ranked = self._cells[cell]
        if ranked is None:
            ranked = self._cells[cell] = SortedList()
        ranked.add((worth, checkpoint.serial))
        if worth < self._least[cell]:
            self._least[cell] = worth

    def leave(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint``, or forget it after its eviction."""
        cell, worth = self.ranks.pop(checkpoint.serial)
        del self._checkpoints[checkpoint.serial]
        ranked = self._cells[cell]
        assert ranked is not None
        ranked.remove((worth, checkpoint.serial))
        self._least[cell] = ranked[0][0] if ranked else np.inf

    def first(self, cell: int | None = None) -> tuple[Checkpoint, float] | None:
        """Return the next victim and what it is worth; of one ``cell``, if that has any."""
        if not self.ranks:
            return None
        if cell is not None and self._cells[cell]:
            worth = float(self._least[cell])
        elif self._least.size == 1:
            cell, worth = 0, float(self._least[0])
        else:
            worths = self._least * self._policy.scales
            cell = int(worths.argmin())
            worth = float(worths[cell])
        ranked = self._cells[cell]
        assert ranked
        return self._checkpoints[ranked[0][1]], worth
