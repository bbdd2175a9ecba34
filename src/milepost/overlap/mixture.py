"""The prediction of the mixture, in one pass over its sorted parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from milepost.kernels import kernel

__all__ = ["OverlapDistribution", "mix", "weight_inside", "with_points"]

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

# Points that stand for a uniform part: enough to space checkpoints evenly, few enough to plan fast.
_UNIFORM_POINTS = 32


@dataclass(frozen=True, slots=True, eq=False)
class OverlapDistribution:
    """Where a later request will diverge from one prompt, given that it shares some of it.

    Attributes:
        depths: Tokens shared, ascending, above 0 and below the prompt's length, shape ``[K]``.
        weights: Probability of each depth, summing to 1 (empty where the prompt is a single token).
    """

    depths: IntArray
    weights: FloatArray


def with_points(
    depths: IntArray, weights: FloatArray, points: Sequence[tuple[int, float]]
) -> tuple[IntArray, FloatArray]:
    """Return ascending ``depths`` and ``weights`` with more of both, after equal depths. O(K log K)."""
    all_depths = np.concatenate((depths, np.array([depth for depth, _ in points], np.int64)))
    all_weights = np.concatenate((weights, np.array([weight for _, weight in points])))
    order = np.argsort(all_depths, kind="stable")
    return all_depths[order], all_weights[order]


@kernel("float64(int64[::1], float64[::1], int64, int64, int64)")
def weight_inside(depths: IntArray, weights: FloatArray, start: int, stop: int, num_tokens: int) -> float:
    """Return the weight of the depths ``start`` to ``stop`` that lie in ``(0, num_tokens]``. O(K)."""
    total = 0.0
    for k in range(start, stop):
        if 0 < depths[k] <= num_tokens:
            total += weights[k]
    return total


@kernel(
    "Tuple((int64[::1], float64[::1]))"
    "(int64[::1], float64[::1], int64[::1], float64[::1], boolean[::1], float64, int64, int64)"
)
def mix(
    depths: IntArray,
    weights: FloatArray,
    splits: IntArray,
    shares: FloatArray,
    from_end: BoolArray,
    uniform_share: float,
    num_tokens: int,
    num_octaves: int,
) -> tuple[IntArray, FloatArray]:
    """Return the pmf of a mixture over the depths of one prompt.

    Args:
        depths: The bins of all components in this prompt, one component after the other, each ascending or
            descending. Depths outside the prompt are left out, and its very end counts as one token less: who
            shares all of it still computes the last token.
        weights: Their weights.
        splits: Where each component begins, and the end, shape ``[components + 1]``. Nothing after it
            counts.
        shares: Share of each component.
        from_end: Whether a component's prior is equal in every octave of the distance from the end; else it
            is uniform. A prior counts as one sharing.
        uniform_share: Share of what no component explains.
        num_tokens: Length of the prompt.
        num_octaves: Of distances from its end, the last one of no distance.

    Complexity: O(K x components).
    """
    num_components = splits.size - 1
    # Every component is a run, then every prior of octaves, then what is uniform.
    num_runs = 2 * num_components + 1
    size = splits[num_components] + num_components * num_octaves + _UNIFORM_POINTS
    run_depths = np.empty(size, np.int64)
    run_weights = np.empty(size)
    heads = np.empty(num_runs, np.int64)
    ends = np.empty(num_runs, np.int64)
    filled, runs = 0, 0
    for c in range(num_components):
        start, stop = splits[c], splits[c + 1]
        unit = shares[c] / (weight_inside(depths, weights, start, stop, num_tokens) + 1.0)
        heads[runs] = filled
        descends = stop - start > 1 and depths[start] > depths[stop - 1]
        for k in range(stop - start):
            at = stop - 1 - k if descends else start + k
            if 0 < depths[at] <= num_tokens:
                run_depths[filled], run_weights[filled] = depths[at], unit * weights[at]
                filled += 1
        ends[runs] = filled
        runs += 1
        if not from_end[c]:
            uniform_share += unit
            continue
        heads[runs] = filled
        for octave in range(num_octaves):
            distance = num_tokens >> (octave + 1) if octave < num_octaves - 1 else 0
            run_depths[filled], run_weights[filled] = num_tokens - distance, unit / num_octaves
            filled += 1
        ends[runs] = filled
        runs += 1
    heads[runs] = filled
    for k in range(_UNIFORM_POINTS):
        run_depths[filled] = (2 * k + 1) * num_tokens // (2 * _UNIFORM_POINTS)
        run_weights[filled] = uniform_share / _UNIFORM_POINTS
        filled += 1
    ends[runs] = filled
    return _merge_runs(run_depths, run_weights, heads, ends, runs + 1, num_tokens - 1)


@kernel("Tuple((int64[::1], float64[::1]))(int64[::1], float64[::1], int64[::1], int64[::1], int64, int64)")
def _merge_runs(
    run_depths: IntArray, run_weights: FloatArray, heads: IntArray, ends: IntArray, runs: int, last: int
) -> tuple[IntArray, FloatArray]:
    """Merge ascending runs into strictly ascending depths in ``(0, last]`` whose weights sum to 1."""
    depths = np.empty(run_depths.size, np.int64)
    weights = np.empty(run_depths.size)
    size = 0
    total = 0.0
    while True:
        first = -1
        for r in range(runs):
            if heads[r] < ends[r] and (first < 0 or run_depths[heads[r]] < run_depths[heads[first]]):
                first = r
        if first < 0:
            break
        depth, weight = min(run_depths[heads[first]], last), run_weights[heads[first]]
        heads[first] += 1
        if depth <= 0:
            continue
        total += weight
        if size and depths[size - 1] == depth:
            weights[size - 1] += weight
        else:
            depths[size], weights[size] = depth, weight
            size += 1
    if total > 0.0:
        for k in range(size):
            weights[k] /= total
    return depths[:size], weights[:size]
