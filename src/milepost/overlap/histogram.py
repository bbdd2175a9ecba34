"""A sparse histogram that forgets."""

from collections.abc import Sequence
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from milepost.errors import ConfigurationError
from milepost.kernels import kernel

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

    __slots__ = ("_decay", "_max_support", "_merge_down", "_size", "_values", "_weights")

    def __init__(self, *, decay: float, max_support: int, merge_down: bool = True) -> None:
        if not 0.0 < decay <= 1.0:
            raise ConfigurationError(f"decay={decay}; give the share that one step keeps, in (0, 1]")
        if max_support < 1:
            raise ConfigurationError(f"max_support={max_support}; give at least 1 bin")
        _add.compiled()
        self._decay = decay
        self._max_support = max_support
        self._merge_down = merge_down
        # One more than may stay, for the value that comes before the lightest goes.
        self._values: IntArray = np.empty(max_support + 1, np.int64)
        self._weights: FloatArray = np.empty(max_support + 1)
        self._size = 0

    @property
    def values(self) -> IntArray:
        """The values that hold weight, ascending, shape ``[K]``. A view: not to be written, nor kept."""
        return self._values[: self._size]

    @property
    def weights(self) -> FloatArray:
        """The weight of each value, shape ``[K]``. A view: not to be written, nor kept."""
        return self._weights[: self._size]

    def weight_of(self, value: int) -> float:
        """Return the weight of one value, 0 where it holds none. O(log K)."""
        at = int(self.values.searchsorted(value))
        return float(self._weights[at]) if at < self._size and self._values[at] == value else 0.0

    def fade(self) -> None:
        """Let one step pass. O(K)."""
        self._weights[: self._size] *= self._decay

    def add(self, value: int, weight: float) -> None:
        """Add ``weight`` to ``value``; of too many values merge the lightest into its neighbour. O(K)."""
        self._size = _add(
            self._values, self._weights, self._size, value, weight, self._max_support, self._merge_down
        )

    def export(self) -> list[list[float]]:
        """Return the values and their weights as plain numbers."""
        return [self.values.tolist(), self.weights.tolist()]

    def restore(self, exported: list[list[float]]) -> None:
        """Take over what :meth:`export` gave; raise ``ValueError`` where that cannot be."""
        values, weights = np.array(exported[0], np.int64), np.array(exported[1], np.float64)
        if not values.shape == weights.shape or values.ndim != 1 or values.size > self._max_support:
            raise ValueError(f"{len(values)} values and {len(weights)} weights for {self._max_support} bins")
        if (np.diff(values) <= 0).any() or not np.isfinite(weights).all() or (weights < 0).any():
            raise ValueError("values ascend, and weights are numbers of at least 0")
        self._size = values.size
        self._values[: self._size], self._weights[: self._size] = values, weights

    def merge(self, exports: Sequence[list[list[float]]], *, scale: float) -> list[list[float]]:
        """Return one export of several: the weights of equal values added up, times ``scale``. O(K) for each
        value.
        """
        merged = DecayedHistogram(
            decay=self._decay, max_support=self._max_support, merge_down=self._merge_down
        )
        # Value by value, so that the order of the exports decides nothing where there are too many.
        for value, weight in sorted(
            pair for values, weights in exports for pair in zip(values, weights, strict=True)
        ):
            merged.add(int(value), weight * scale)
        return merged.export()


@kernel("int64(int64[::1], float64[::1], int64, int64, float64, int64, boolean)")
def _add(
    values: IntArray,
    weights: FloatArray,
    size: int,
    value: int,
    weight: float,
    max_support: int,
    merge_down: bool,
) -> int:
    """Add a weight in place and return the new number of values."""
    at, end = 0, size
    while at < end:
        middle = (at + end) // 2
        if values[middle] < value:
            at = middle + 1
        else:
            end = middle
    if at < size and values[at] == value:
        weights[at] += weight
        return size
    for k in range(size, at, -1):
        values[k], weights[k] = values[k - 1], weights[k - 1]
    values[at], weights[at] = value, weight
    size += 1
    if size > max_support:
        lightest = 0
        for k in range(1, size):
            if weights[k] < weights[lightest]:
                lightest = k
        heir = lightest - 1 if merge_down else lightest + 1
        # At the shallow edge there is no safe heir: what so little weight says there is forgotten.
        if 0 <= heir < size:
            weights[heir] += weights[lightest]
        size -= 1
        for k in range(lightest, size):
            values[k], weights[k] = values[k + 1], weights[k + 1]
    return size
