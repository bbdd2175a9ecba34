"""What the learned policy expects of one prompt: where the next request diverges from it."""

import math
from array import array
from bisect import bisect_left, bisect_right
from typing import final

from milepost.overlap import OverlapDistribution
from milepost.store import BranchPoint
from milepost.untracked import untracked

__all__ = ["Forecast"]


@final
class Forecast:
    """Where the next request diverges from a prompt, and the watched branch points on its path, ascending.

    Two plain arrays, searched one number at a time: a cache remembers hundreds of thousands of forecasts.

    Args:
        expected: The depths and their weights, shape ``[K]``.
        version: How far the evidence was that it was made from.
        branch_points: Of those on its path, the ones that are watched, ascending.
    """

    __slots__ = ("_before", "_depths", "_positions", "branch_points", "version")

    def __init__(self, expected: OverlapDistribution, version: int, branch_points: list[BranchPoint]) -> None:
        self._depths: array[int] = untracked(array("q", expected.depths.tobytes()))
        # The weight before each depth, and all of it.
        self._before: array[float] = untracked(array("d", bytes(8) + expected.weights.cumsum().tobytes()))
        self.version = version
        self.meet(branch_points)
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
        first = bisect_left(positions, start)
        return self.branch_points[first : bisect_left(positions, end, first)]

    def chance(self, start: int, end: float, passed: int) -> float:
        """Return the chance that the next request diverges in ``[start, end)``, given that it does not in the
        first ``passed`` tokens: other prompts own those.
        """
        depths, before = self._depths, self._before
        first, total = bisect_left(depths, start), before[-1]
        mass = (total if end == math.inf else before[bisect_left(depths, end, first)]) - before[first]
        if passed == 0:
            return mass
        rest = total - before[bisect_right(depths, passed)]
        return min(1.0, mass / rest) if rest > 0.0 else 0.0
