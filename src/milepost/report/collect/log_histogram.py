"""Counts of amounts over many orders of magnitude, in bins of equal ratio."""

import math
from dataclasses import dataclass
from typing import final

from milepost.errors import ConfigurationError

__all__ = ["Bin", "LogHistogram"]


@dataclass(frozen=True, slots=True)
class Bin:
    """``count`` amounts in ``[low, high)``, on average ``mean``; amounts of zero are a bin ``[0, 0]``."""

    low: float
    high: float
    count: int
    mean: float


@final
class LogHistogram:
    """Amounts of at least 0, each known to within its bin.

    Memory grows with the range of the amounts, not with their number: at most ``bins_per_octave`` bins for
    every factor of two between the least and the greatest.

    Args:
        bins_per_octave: Bins for each factor of two; each is a factor of ``2 ** (1 / bins_per_octave)`` wide.

    >>> histogram = LogHistogram(bins_per_octave=1)
    >>> for amount in (0, 5, 7, 100):
    ...     histogram.add(amount)
    >>> [(each.low, each.high, each.count) for each in histogram.bins()]
    [(0.0, 0.0, 1), (4.0, 8.0, 2), (64.0, 128.0, 1)]
    """

    __slots__ = ("_bins_per_octave", "_counts", "_num_zeros", "_sums")

    def __init__(self, *, bins_per_octave: int) -> None:
        if bins_per_octave < 1:
            raise ConfigurationError(f"bins_per_octave={bins_per_octave}; give at least 1")
        self._bins_per_octave = bins_per_octave
        self._counts: dict[int, int] = {}
        self._sums: dict[int, float] = {}
        self._num_zeros = 0

    @property
    def total(self) -> int:
        """Amounts added."""
        return self._num_zeros + sum(self._counts.values())

    @property
    def bins_per_octave(self) -> int:
        """Bins for each factor of two."""
        return self._bins_per_octave

    def add(self, amount: float) -> None:
        """Count one amount. O(1)."""
        if amount <= 0:
            self._num_zeros += 1
            return
        index = math.floor(math.log2(amount) * self._bins_per_octave)
        self._counts[index] = self._counts.get(index, 0) + 1
        self._sums[index] = self._sums.get(index, 0.0) + amount

    def counts_by_index(self) -> dict[int, int]:
        """Return the count of each bin ``[2 ** (i / bins_per_octave), ...)`` by ``i``, ascending."""
        return dict(sorted(self._counts.items()))

    @property
    def num_zeros(self) -> int:
        """Amounts of zero."""
        return self._num_zeros

    def bins(self) -> list[Bin]:
        """Return the bins that hold anything, ascending. O(bins log bins)."""
        zeros = [Bin(0.0, 0.0, self._num_zeros, 0.0)] if self._num_zeros else []
        return zeros + [
            Bin(
                2.0 ** (index / self._bins_per_octave),
                2.0 ** ((index + 1) / self._bins_per_octave),
                count,
                self._sums[index] / count,
            )
            for index, count in sorted(self._counts.items())
        ]

    def quantile(self, share: float) -> float:
        """Return the amount that ``share`` of all amounts do not exceed, by nearest rank; 0 if empty.

        It is the mean of the amount's bin, so exact where they are all the same, and never further away than
        the bin is wide: 1.1 % at 64 bins an octave.
        """
        rank = max(1, math.ceil(share * self.total))
        seen = 0
        for each in self.bins():
            seen += each.count
            if seen >= rank:
                return each.mean
        return 0.0

    def share_below(self, amount: float) -> float:
        """Return the share of amounts in bins that end at or before ``amount``; 0 if empty."""
        total = self.total
        below = sum(each.count for each in self.bins() if each.high <= amount)
        return below / total if total else 0.0
