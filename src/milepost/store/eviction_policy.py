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

import numpy as np
import numpy.typing as npt

from milepost.store.checkpoint import Checkpoint
from milepost.store.node import Node
from milepost.store.seen import SeenPrompt
from milepost.store.tree import InsertResult

__all__ = ["KV_CELL", "STATE_CELL", "EvictionPolicy", "Recency", "Reranking"]

FloatArray = npt.NDArray[np.float64]

# Cells of a policy that ranks what frees KV apart from what frees a state alone, where the budget is split.
STATE_CELL, KV_CELL = 0, 1
_ONE_CELL = np.ones(1)
_ONE_CELL.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Reranking:
    """What a request has changed.

    Attributes:
        changed: Checkpoints to be ranked again. Where one became worth more, that can wait: what is about to
            be evicted is ranked again first.
        moved: Prompts that belong to another of their cells now, with the checkpoints that they own.
        everything: All are to be ranked again.
    """

    changed: Sequence[Checkpoint] = ()
    moved: Sequence[tuple[SeenPrompt, int]] = ()
    everything: bool = False


NOTHING_CHANGED = Reranking()


class EvictionPolicy(ABC):
    """Ranks checkpoints. See the module."""

    #: Whether worth depends on the neighbours of a checkpoint and on the memory that it holds alone.
    weighs_neighbours: bool = False

    #: Cells below this one are those of prompts: what ranks there moves to another with its owner.
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
    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return the cell of ``checkpoint`` and its worth inside it; ties go to the oldest.

        ``freed_bytes`` are those that its eviction frees; its own where neighbours are not weighed. Changes
        nothing but a policy's own notes on prompts and branch points.
        """

    def note_request(self, inserted: InsertResult) -> Reranking:
        """Learn from a request that was just served; return what has changed by it."""
        return NOTHING_CHANGED

    def note_restored(self, prompt: SeenPrompt) -> None:  # noqa: B027
        """Learn that a prompt is remembered that was no request, as one of an earlier process."""

    def note_extended(self, prompt: SeenPrompt) -> None:  # noqa: B027
        """Learn that a prompt seen before is longer by now: its answer goes on."""

    def note_forgotten(self, node: Node) -> None:  # noqa: B027
        """Learn that ``node``, mere history, is remembered no more."""

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:  # noqa: B027
        """Learn that ``checkpoint`` was evicted, when it was worth ``scale * worth``."""


class Recency(EvictionPolicy):
    """Least recently used. Using a checkpoint refreshes it alone, not the ones before it on the same prompt:
    those are kept only as long as requests really diverge there. Of two that were used at once, one
    that can be brought back goes first.
    """

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return the tick of the last use."""
        return 0, checkpoint.last_used - (checkpoint.reload_cost < math.inf) / 2
