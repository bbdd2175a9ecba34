"""A sparse histogram that forgets."""

from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from milepost.errors import ConfigurationError

__all__ = ["DecayedHistogram"]

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]


@final
class DecayedHistogram:
    """Sparse weights over whole numbers, at most ``max_support``, fading by ``decay`` a step.

    >>> histogram = DecayedHistogram(decay=0.5, max_support=8)
    >>> for value in (64, 128, 64):
    ...     histogram.fade()
    ...     histogram.add(value, 1.0)
    >>> histogram.values.tolist(), histogram.weights.tolist()
    ([64, 128], [1.25, 0.5])
    """

    __slots__ = ("_decay", "_max_support", "_merge_down", "_values", "_weights")

    def __init__(self, *, decay: float, max_support: int, merge_down: bool = True) -> None:
        if not 0.0 < decay <= 1.0:
            raise ConfigurationError(f"decay={decay}; give the share that one step keeps, in (0, 1]")
        if max_support < 1:
            raise ConfigurationError(f"max_support={max_support}; give at least 1 bin")
        self._decay = decay
        self._max_support = max_support
        self._merge_down = merge_down
        self._values: IntArray = np.empty(0, np.int64)
        self._weights: FloatArray = np.empty(0)

    @property
    def values(self) -> IntArray:
        """The values that hold weight, ascending, shape ``[K]``. A view: not to be written."""
        return self._values

    @property
    def weights(self) -> FloatArray:
        """The weight of each value, shape ``[K]``. A view: not to be written."""
        return self._weights

    def weight_of(self, value: int) -> float:
        """Return the weight of one value, 0 where it holds none. O(log K)."""
        at = int(self._values.searchsorted(value))
        return float(self._weights[at]) if at < self._values.size and self._values[at] == value else 0.0

    def fade(self) -> None:
        """Let one step pass. O(K)."""
        self._weights *= self._decay

    def add(self, value: int, weight: float) -> None:
        """Add ``weight`` to ``value``; of too many values merge the lightest into its neighbour. O(K)."""
        at = int(self._values.searchsorted(value))
        if at < self._values.size and self._values[at] == value:
            self._weights[at] += weight
            return
        self._values = np.insert(self._values, at, value)
        self._weights = np.insert(self._weights, at, weight)
        if self._values.size > self._max_support:
            self._merge_lightest()

    def _merge_lightest(self) -> None:
        lightest = int(self._weights.argmin())
        heir = lightest - 1 if self._merge_down else lightest + 1
        if 0 <= heir < self._values.size:
            self._weights[heir] += self._weights[lightest]
        # At the shallow edge there is no safe heir: what so little weight says there is forgotten.
        self._values = np.delete(self._values, lightest)
        self._weights = np.delete(self._weights, lightest)
