"""The compiled kernels of the planner: monotone upper envelopes of lines.

Both kernels maximise ``intercepts[i] + gains[i] * shares[j]`` over ``i``, for every ``j``. Slopes ``gains``
ascend strictly and queries ``shares`` ascend, so the envelope is built in one pass and read in another, with
no search and no recursion: O(1) amortised per line and per query.

:func:`fill_budget_layers` may offer every line to every query, also lines ``i >= j``, which the recurrence
excludes: candidates between ``j`` and ``i`` gain less than ``gains[i]``, so such a line stays at or below
``saving[m-1][j]`` and wins nothing; where it ties, the parent says that layer ``m`` adds no checkpoint. So a
layer's lines are all known before its first query, and most of them fall to a branch-free test against their
two neighbours, which on irregular weights is twice as fast as an envelope that grows between queries.
:func:`fill_priced` feeds on its own values and has to grow it.

Numbers are expected in ``[0, 1]`` (:mod:`milepost.placement.planner` scales them), so that envelope tests
lose nothing to the differing magnitudes of tokens, FLOPs or seconds.
"""

import numpy as np
import numpy.typing as npt

from milepost.kernels import kernel

__all__ = ["NEGLIGIBLE_SAVING", "NO_PARENT", "fill_budget_layers", "fill_priced"]

# Savings closer than this, as a fraction of the largest possible one, are ties; ties go to fewer checkpoints.
NEGLIGIBLE_SAVING = 1e-12
NO_PARENT = -1
# On irregular weights each round halves what is left, and what survives three is close to the envelope. On
# smooth ones nearly every line is on it, and thinning ends after the first round.
_THINNING_ROUNDS = 3


@kernel("int64(float64[::1], float64[::1], float64[::1], int32[:, ::1])")
def fill_budget_layers(
    gains: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
    savings: npt.NDArray[np.float64],
    parents: npt.NDArray[np.int32],
) -> int:
    """Fill ``savings[m]`` and ``parents[m - 1]`` for ``m = 1, 2, ...``; return the number of layers filled.

    Stops at the first layer that adds nothing: savings are concave in ``m``, so later ones add nothing too.

    Args:
        gains: Shape ``[K]``, strictly ascending, above 0.
        shares: Shape ``[K + 1]``, ascending from 0; ``shares[j]`` is the weight before candidate ``j``.
        savings: Shape ``[M + 1]``, written; ``savings[0]`` is 0.
        parents: Shape ``[M, K + 1]``, written; the last checkpoint of the best plan for the first ``j``
            candidates, or one at or beyond ``j`` where this layer adds none.
    """
    count = gains.size
    values = np.empty(count + 1)
    for j in range(count + 1):
        values[j] = 0.0
    intercepts = np.empty(count)
    lines = np.empty(count, np.int32)
    for layer in range(parents.shape[0]):
        for i in range(count):
            intercepts[i] = values[i] - gains[i] * shares[i]
            lines[i] = i
        num_lines = count
        for _ in range(_THINNING_ROUNDS):
            before = num_lines
            num_lines = _drop_below_neighbours(gains, intercepts, lines, before)
            if 4 * num_lines > 3 * before:
                break
        num_lines = _keep_envelope(gains, intercepts, lines, num_lines)
        _answer_queries(gains, intercepts, lines[:num_lines], shares, values, parents[layer])
        if values[count] - savings[layer] <= NEGLIGIBLE_SAVING:
            return layer
        savings[layer + 1] = values[count]
    return len(parents)


@kernel("int64(float64[::1], float64[::1], int32[::1], int64)")
def _drop_below_neighbours(
    gains: npt.NDArray[np.float64],
    intercepts: npt.NDArray[np.float64],
    lines: npt.NDArray[np.int32],
    num_lines: int,
) -> int:
    """Compact ``lines`` in place, without those nowhere above both neighbours; return how many are left."""
    if num_lines < 3:
        return num_lines
    kept = 1
    before, line = lines[0], lines[1]
    for t in range(2, num_lines):
        after = lines[t]
        rise = (intercepts[line] - intercepts[before]) * (gains[after] - gains[before])
        lines[kept] = line
        kept += (intercepts[after] - intercepts[before]) * (gains[line] - gains[before]) < rise
        before, line = line, after
    lines[kept] = line
    return kept + 1


@kernel("int64(float64[::1], float64[::1], int32[::1], int64)")
def _keep_envelope(
    gains: npt.NDArray[np.float64],
    intercepts: npt.NDArray[np.float64],
    lines: npt.NDArray[np.int32],
    num_lines: int,
) -> int:
    """Compact ``lines`` in place to those that are highest somewhere; return how many."""
    kept = 0
    for t in range(num_lines):
        line = lines[t]
        while kept > 1:
            middle, before = lines[kept - 1], lines[kept - 2]
            rise = (intercepts[middle] - intercepts[before]) * (gains[line] - gains[before])
            if (intercepts[line] - intercepts[before]) * (gains[middle] - gains[before]) < rise:
                break
            kept -= 1
        lines[kept] = line
        kept += 1
    return kept


@kernel("void(float64[::1], float64[::1], int32[::1], float64[::1], float64[::1], int32[::1])")
def _answer_queries(
    gains: npt.NDArray[np.float64],
    intercepts: npt.NDArray[np.float64],
    envelope: npt.NDArray[np.int32],
    shares: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    owners: npt.NDArray[np.int32],
) -> None:
    """Write the envelope's height at ``shares[1:]`` into ``values[1:]`` and its line into ``owners``."""
    j = 1
    for t in range(envelope.size):
        line = envelope[t]
        gain, intercept = gains[line], intercepts[line]
        until = np.inf
        if t + 1 < envelope.size:
            following = envelope[t + 1]
            until = (intercept - intercepts[following]) / (gains[following] - gain)
        while j < shares.size and shares[j] <= until:
            values[j] = intercept + gain * shares[j]
            owners[j] = line
            j += 1


@kernel("void(float64[::1], float64[::1], float64, int32[::1])")
def fill_priced(
    gains: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
    price: float,
    parents: npt.NDArray[np.int32],
) -> None:
    """Fill ``parents``, shape ``[K + 1]``, of the plan that maximises saving minus price times its size.

    ``parents[j]`` is the last checkpoint of the best plan for the first ``j`` candidates, or ``NO_PARENT``
    where the best plan for them is no checkpoint at all: the line of slope 0 that pays no price.
    """
    count = gains.size
    slope = np.empty(count + 1)
    intercept = np.empty(count + 1)
    owner = np.empty(count + 1, np.int32)
    slope[0], intercept[0], owner[0] = 0.0, 0.0, NO_PARENT
    parents[0] = NO_PARENT
    best, last = 0, 0
    value = 0.0
    for j in range(1, count + 1):
        # `value` is still the best of the first j - 1 candidates.
        new_slope = gains[j - 1]
        new_intercept = value - new_slope * shares[j - 1] - price
        while last > best:
            run = slope[last] - slope[last - 1]
            rise = intercept[last] - intercept[last - 1]
            new_run = new_slope - slope[last - 1]
            if (new_intercept - intercept[last - 1]) * run < rise * new_run:
                break
            last -= 1
        last += 1
        slope[last], intercept[last], owner[last] = new_slope, new_intercept, j - 1
        query = shares[j]
        value = intercept[best] + slope[best] * query
        while best < last:
            following = intercept[best + 1] + slope[best + 1] * query
            if following <= value:
                break
            value = following
            best += 1
        parents[j] = owner[best]
