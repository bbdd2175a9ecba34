"""The exact planner: where checkpoints save most, for every budget at once or at one price each.

Law
    A prompt will be shared up to a random ``depth``. With checkpoints at ``positions`` the next request
    resumes from the deepest one at or before its depth, or from ``base``, which is stored already. What the
    positions save beyond the base is::

        sum over depths of weight * (cost(deepest position <= depth, else base) - cost(base))

    and :func:`plan_budgets` maximises it for at most ``m`` positions, for every ``m`` up to a maximum, while
    :func:`plan_priced` maximises it minus ``price_per_checkpoint`` for each position.

Theory
    Moving a position up to the next depth loses no request and never lowers ``cost``, which is monotone. So
    some best plan uses depths only; on a grid, depths floored to the grid. Call them candidates ``0..K-1``,
    with ``gains[i] = cost(candidate i) - cost(base)`` and ``shares[j]`` the weight of all depths before
    candidate ``j``. If ``i`` is the last checkpoint, it serves all the weight between ``i`` and the end, and
    what comes before ``i`` is the same problem with one checkpoint less (arXiv 2605.05219, its dynamic
    program, here for a maximum and for any monotone cost)::

        saving[m][j] = max over i < j of  saving[m-1][i] + gains[i] * (shares[j] - shares[i])

    For a fixed ``j`` these are lines in ``shares[j]`` with slope ``gains[i]``. Slopes and queries both ascend
    whatever the cost is, as long as it is monotone, so one pass over their upper envelope fills a layer: O(K)
    per layer and O(K M) for all budgets (:mod:`milepost.placement.hull`).

    The edge ``gains[i] * (shares[j] - shares[i])`` satisfies the quadrangle inequality, since for
    ``i < h <= j < k`` crossing edges lose ``(gains[h] - gains[i]) * (shares[k] - shares[j]) >= 0``. Hence
    ``saving[m]`` is concave in ``m``: each further checkpoint adds no more than the one before, and the
    priced plan is the best budget at that price. It drops the index ``m`` from the recurrence: O(K).

This module does not know where the weights come from (:mod:`milepost.overlap`) nor what a checkpoint costs.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from milepost.counts import as_count, as_number
from milepost.errors import ConfigurationError
from milepost.placement.base import CostFunction, Placement
from milepost.placement.hull import NEGLIGIBLE_SAVING, NO_PARENT, fill_budget_layers, fill_priced

__all__ = ["BudgetPlans", "plan_budgets", "plan_priced"]

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]

# A cost measured or summed in floating point may dip by rounding; more than this share of its range is a bug.
_COST_DIP = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class BudgetPlans:
    """The best plan for every budget ``0..max_budget``, positions backtracked on demand.

    Attributes:
        max_budget: Largest number of checkpoints that was asked for.
        savings: ``savings[m]`` is the expected saving of at most ``m`` checkpoints, concave and ascending.
            Shorter than ``max_budget + 1`` where further checkpoints add nothing.
    """

    max_budget: int
    savings: FloatArray
    _candidates: IntArray = field(repr=False)
    _parents: npt.NDArray[np.int32] = field(repr=False)

    def saving(self, budget: int) -> float:
        """Return the expected saving of at most ``budget`` checkpoints, in weight times cost. O(1)."""
        return float(self.savings[self._used(budget)])

    def placement(self, budget: int) -> Placement:
        """Return the fewest positions that reach ``saving(budget)``. O(budget)."""
        positions: list[int] = []
        j = self._candidates.size
        # Every layer that is used adds to the saving, so every one of them places a checkpoint.
        for layer in range(self._used(budget) - 1, -1, -1):
            j = int(self._parents[layer, j])
            positions.append(int(self._candidates[j]))
        return Placement(tuple(reversed(positions)))

    def _used(self, budget: int) -> int:
        if not 0 <= budget <= self.max_budget:
            raise ConfigurationError(
                f"budget={budget} is outside 0..{self.max_budget}; plan again with max_budget={budget}"
            )
        return min(budget, self.savings.size - 1)


def plan_budgets(
    depths: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    max_budget: int,
    cost: CostFunction | None = None,
    grid: int = 1,
    base: int = 0,
) -> BudgetPlans:
    """Return the best placement for every number of checkpoints up to ``max_budget``.

    Args:
        depths: Overlap depths in tokens, shape ``[K]``, ascending (repeats are summed).
        weights: Weight of each depth, shape ``[K]``, finite and not negative; a pmf or any scale of it.
        max_budget: Largest number of checkpoints.
        cost: Cost of computing the first ``p`` tokens, vectorised over positions and monotone; tokens if
            None. A table by position serves as ``table.__getitem__``.
        grid: Positions are multiples of this many tokens.
        base: Position that is stored already; positions are beyond it.

    Raises:
        ConfigurationError: a shape, an order, a sign or the cost's monotony is wrong.

    Complexity: time and memory O(K * min(K, max_budget)).

    >>> plans = plan_budgets([100, 900, 1000], [0.2, 0.5, 0.3], max_budget=2)
    >>> plans.placement(1).positions, plans.saving(1)
    ((900,), 720.0)
    >>> plans.placement(2).positions, plans.saving(2)
    ((900, 1000), 750.0)
    """
    max_budget = as_count("max_budget", max_budget)
    problem = _scaled(depths, weights, cost=cost, grid=grid, base=base)
    layers = min(max_budget, problem.candidates.size)
    savings = np.zeros(layers + 1)
    parents = np.empty((layers, problem.candidates.size + 1), np.int32)
    filled = int(fill_budget_layers(problem.gains, problem.shares, savings, parents))
    return BudgetPlans(
        max_budget, savings[: filled + 1] * problem.scale, problem.candidates, parents[:filled]
    )


def plan_priced(
    depths: npt.ArrayLike,
    weights: npt.ArrayLike,
    *,
    price_per_checkpoint: float,
    cost: CostFunction | None = None,
    grid: int = 1,
    base: int = 0,
) -> Placement:
    """Return the placement of largest expected saving minus ``price_per_checkpoint`` for each position.

    The price is in the units of the saving, weight times cost; the other arguments are those of
    :func:`plan_budgets`. A checkpoint that earns no more than its price is left out.

    Raises:
        ConfigurationError: as :func:`plan_budgets`, or the price is negative or not a number.

    Complexity: O(K).

    >>> plan_priced([100, 900, 1000], [0.2, 0.5, 0.3], price_per_checkpoint=25.0).positions
    (900, 1000)
    >>> plan_priced([100, 900, 1000], [0.2, 0.5, 0.3], price_per_checkpoint=30.0).positions
    (900,)
    """
    if price_per_checkpoint != np.inf:
        price_per_checkpoint = as_number("price_per_checkpoint", price_per_checkpoint)
    problem = _scaled(depths, weights, cost=cost, grid=grid, base=base)
    if problem.scale <= 0.0 or price_per_checkpoint >= problem.scale:
        return Placement()
    parents = np.empty(problem.candidates.size + 1, np.int32)
    # The nudge settles ties: a checkpoint has to earn more than its price.
    scaled_price = price_per_checkpoint / problem.scale + NEGLIGIBLE_SAVING
    fill_priced(problem.gains, problem.shares, scaled_price, parents)
    positions: list[int] = []
    j = int(parents[-1])
    while j != NO_PARENT:
        positions.append(int(problem.candidates[j]))
        j = int(parents[j])
    return Placement(tuple(reversed(positions)))


@dataclass(frozen=True, slots=True, eq=False)
class _ScaledProblem:
    """Candidates, their gains in ``(0, 1]``, the weight shares before each in ``[0, 1]``, and the scale."""

    candidates: IntArray
    gains: FloatArray
    shares: FloatArray
    scale: float


_NOTHING_TO_GAIN = _ScaledProblem(np.empty(0, np.int64), np.empty(0), np.zeros(1), 0.0)


def _scaled(
    depths: npt.ArrayLike, weights: npt.ArrayLike, *, cost: CostFunction | None, grid: int, base: int
) -> _ScaledProblem:
    """Check the input and reduce it to candidates that can each add something."""
    grid, base = as_count("grid", grid, least=1), as_count("base", base)
    given_depths, given_weights = _checked(depths, weights)
    floored = given_depths // grid * grid
    useful = (floored > base) & (given_weights > 0.0)
    floored, useful_weights = floored[useful], given_weights[useful]
    if floored.size == 0:
        return _NOTHING_TO_GAIN
    first_of_each = _where_rising(floored)
    candidates = floored[first_of_each]
    gains = _gains(candidates, base, cost)
    gain_scale = float(gains[-1])
    if gain_scale <= 0.0:
        return _NOTHING_TO_GAIN
    gains /= gain_scale
    # Where the cost is flat, the shallower of two candidates serves the weight of both at the same gain.
    rising = _where_rising(gains)
    if gains[0] <= 0.0:
        rising = rising[1:]
    starts = first_of_each[rising]
    shares = np.empty(rising.size + 1)
    shares[0] = 0.0
    np.cumsum(np.add.reduceat(useful_weights, starts), out=shares[1:])
    total = float(shares[-1])
    shares /= total
    return _ScaledProblem(candidates[rising], gains[rising], shares, gain_scale * total)


def _where_rising(ascending: npt.NDArray[np.int64 | np.float64]) -> npt.NDArray[np.intp]:
    """Return the indices of the first of each run of equal numbers."""
    first = np.empty(ascending.size, np.bool_)
    first[0] = True
    np.greater(ascending[1:], ascending[:-1], out=first[1:])
    return np.flatnonzero(first)


def _checked(depths: npt.ArrayLike, weights: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    try:
        raw_depths = np.asarray(depths)
        given_weights = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"depths and weights are lists of numbers of one length: {error}") from error
    if raw_depths.ndim != 1 or raw_depths.shape != given_weights.shape:
        raise ConfigurationError(
            f"depths have shape {raw_depths.shape} and weights {given_weights.shape}; give one weight a depth"
        )
    if raw_depths.size == 0:
        return np.empty(0, np.int64), given_weights
    if raw_depths.dtype.kind not in "iu":
        raise ConfigurationError(f"depths have dtype {raw_depths.dtype}; a depth is a whole number of tokens")
    given_depths = raw_depths.astype(np.int64, copy=False)
    if given_depths[0] < 0 or (given_depths[1:] < given_depths[:-1]).any():
        raise ConfigurationError("depths are negative or not ascending; sort them, with their weights")
    if not (np.isfinite(given_weights).all() and float(given_weights.min()) >= 0.0):
        raise ConfigurationError("weights hold a negative or non-finite number; give rates of 0 or more")
    return given_depths, given_weights


def _gains(candidates: IntArray, base: int, cost: CostFunction | None) -> FloatArray:
    if cost is None:
        return (candidates - base).astype(np.float64)
    costs = np.asarray(cost(np.concatenate(([base], candidates))), dtype=np.float64)
    if costs.shape != (candidates.size + 1,) or not np.all(np.isfinite(costs)):
        raise ConfigurationError(
            f"cost returned shape {costs.shape} for {candidates.size + 1} positions, or a non-finite number; "
            "it maps an array of positions to finite costs, one each"
        )
    gains = np.maximum.accumulate(costs) - costs[0]
    dips = gains - (costs - costs[0])
    worst = int(dips.argmax())
    if dips[worst] > _COST_DIP * max(float(gains[-1]), abs(float(costs[0]))):
        raise ConfigurationError(
            f"cost falls by {dips[worst]:.6g} on the way to position {candidates[worst - 1]}; "
            "more tokens never cost less: give a monotone cost"
        )
    return np.ascontiguousarray(gains[1:])
