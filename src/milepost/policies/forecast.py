"""What the learned policy expects of one prompt: where the next request diverges from it."""

import math
from array import array
from bisect import bisect_left, bisect_right
from typing import final

import numpy as np

from milepost.overlap import OverlapDistribution
from milepost.store import BranchPoint
from milepost.untracked import untracked

__all__ = ["Forecast"]


@final
class Forecast:
    """Where the next request diverges from a prompt: depths ascending and their weights, shape ``[K]``; and
    the watched branch points on its path, ascending.

    Attributes:
        version: How far the evidence was that it was made from.
    """

    __slots__ = ("_positions", "_table", "branch_points", "depths", "version", "weights")

    def __init__(self, expected: OverlapDistribution, version: int, branch_points: list[BranchPoint]) -> None:
        self.depths = expected.depths
        self.weights = expected.weights
        self.version = version
        self.meet(branch_points)
        # Depths and the weight before each, made when they are first searched, one number at a time.
        self._table: tuple[array[int], array[float]] | None = None
        untracked(self)

    def meet(self, branch_points: list[BranchPoint]) -> None:
        """Note which branch points lie on this prompt's path, ascending."""
        self.branch_points = untracked(branch_points)
        self._positions = untracked([branch_point.position for branch_point in branch_points])

    def between(self, start: int, end: float) -> list[BranchPoint]:
        """Return the branch points in ``[start, end)``. O(log n), and those found."""
        positions = self._positions
        if not positions or positions[-1] < start:
            return []
        return self.branch_points[bisect_left(positions, start) : bisect_left(positions, end)]

    def chance(self, start: int, end: float, passed: int) -> float:
        """Return the chance that the next request diverges in ``[start, end)``, given that it does not in the
        first ``passed`` tokens: other prompts own those.
        """
        if self._table is None:
            sums = np.concatenate(([0.0], self.weights.cumsum()))
            depths, before = array("q", self.depths.tobytes()), array("d", sums.tobytes())
            self._table = untracked((untracked(depths), untracked(before)))
        depths, before = self._table
        total = before[-1]
        mass = (total if end == math.inf else before[bisect_left(depths, end)]) - before[
            bisect_left(depths, start)
        ]
        if passed == 0:
            return mass
        rest = total - before[bisect_right(depths, passed)]
        return min(1.0, mass / rest) if rest > 0.0 else 0.0
