"""A pmf over depths, merged from sorted parts."""

from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["Mixture", "OverlapDistribution", "weight_inside"]

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]

_NO_DEPTHS = np.empty(0, np.int64)
_NO_WEIGHTS = np.empty(0)


@dataclass(frozen=True, slots=True, eq=False)
class OverlapDistribution:
    """Where a later request will part from one prompt, given that it shares some of it.

    Attributes:
        depths: Tokens shared, ascending, above 0 and below the prompt's length, shape ``[K]``.
        weights: Probability of each depth, summing to 1 (empty where the prompt is a single token).
    """

    depths: IntArray
    weights: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Weights over depths, strictly ascending."""

    depths: IntArray
    weights: FloatArray

    @classmethod
    def empty(cls) -> Self:
        """Return the mixture of nothing."""
        return cls(_NO_DEPTHS, _NO_WEIGHTS)

    def merged(self, depths: IntArray, weights: FloatArray, *, num_tokens: int, scale: float) -> Self:
        """Return this and ``scale`` times the part of another that lies inside a prompt. O(K).

        Args:
            depths: Ascending or descending; those outside ``(0, num_tokens]`` are left out, and
                ``num_tokens`` itself counts as one less: who shares all still computes the last token.
            weights: Their weights.
            num_tokens: Length of the prompt.
            scale: Factor for ``weights``.
        """
        return type(self)(*_merge(self.depths, self.weights, depths, weights, num_tokens, scale))

    def normalised(self) -> OverlapDistribution:
        """Return the pmf."""
        weights = self.weights / max(float(self.weights.sum()), np.finfo(np.float64).tiny)
        self.depths.flags.writeable = weights.flags.writeable = False
        return OverlapDistribution(self.depths, weights)


@njit(cache=True)
def weight_inside(depths: IntArray, weights: FloatArray, num_tokens: int) -> float:
    """Return the weight of the depths in ``(0, num_tokens]``. O(K)."""
    total = 0.0
    for k in range(depths.size):
        if 0 < depths[k] <= num_tokens:
            total += weights[k]
    return total


@njit(cache=True)
def _merge(
    left: IntArray,
    left_weights: FloatArray,
    right: IntArray,
    right_weights: FloatArray,
    num_tokens: int,
    scale: float,
) -> tuple[IntArray, FloatArray]:
    depths = np.empty(left.size + right.size, np.int64)
    weights = np.empty(left.size + right.size)
    is_descending = right.size > 1 and right[0] > right[-1]
    size, i = 0, 0
    for k in range(right.size):
        at = right.size - 1 - k if is_descending else k
        if not 0 < right[at] <= num_tokens:
            continue
        depth = min(right[at], num_tokens - 1)
        if depth == 0:
            continue
        while i < left.size and left[i] <= depth:
            depths[size], weights[size] = left[i], left_weights[i]
            size += 1
            i += 1
        if size and depths[size - 1] == depth:
            weights[size - 1] += scale * right_weights[at]
        else:
            depths[size], weights[size] = depth, scale * right_weights[at]
            size += 1
    while i < left.size:
        depths[size], weights[size] = left[i], left_weights[i]
        size += 1
        i += 1
    return depths[:size], weights[:size]
