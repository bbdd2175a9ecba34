"""The exact planner against brute force, and the laws that it promises."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.errors import ConfigurationError
from milepost.placement import plan_budgets, plan_priced

# The first plan of a process compiles or loads the kernels.
compiles_first = settings(deadline=None)


@st.composite
def problems(draw):
    """Few depths with few weights, any monotone cost (flat stretches included), any grid and base."""
    depths = sorted(draw(st.lists(st.integers(0, 24), min_size=1, max_size=7)))
    weights = draw(st.lists(st.integers(0, 5), min_size=len(depths), max_size=len(depths)))
    steps = draw(st.lists(st.integers(0, 9), min_size=25, max_size=25))
    start = draw(st.integers(-20, 20))
    return {
        "depths": np.array(depths),
        "weights": np.array(weights, dtype=float),
        "cost": (start + np.cumsum(steps)).astype(float),
        "grid": draw(st.sampled_from([1, 2, 3, 8])),
        "base": draw(st.integers(0, 20)),
    }


def saving_of(problem, positions):
    """The definition, term by term."""
    cost, base = problem["cost"], problem["base"]
    saved = 0.0
    for depth, weight in zip(problem["depths"], problem["weights"], strict=True):
        usable = [p for p in positions if p <= depth]
        if usable:
            saved += weight * (cost[max(usable)] - cost[base])
    return saved


def every_grid_position(problem):
    return [p for p in range(problem["base"] + 1, 25) if p % problem["grid"] == 0]


def best_of_size(problem, size):
    """Brute force over all positions on the grid, not only over the planner's candidates."""
    placeable = every_grid_position(problem)
    sizes = range(min(size, len(placeable)) + 1)
    return max(saving_of(problem, chosen) for count in sizes for chosen in combinations(placeable, count))


def arguments(problem):
    return {
        "depths": problem["depths"],
        "weights": problem["weights"],
        "cost": problem["cost"].__getitem__,
        "grid": problem["grid"],
        "base": problem["base"],
    }


@compiles_first
@given(problems())
def test_each_budget_saves_as_much_as_the_best_of_all_subsets_of_grid_positions(problem):
    plans = plan_budgets(**arguments(problem), max_budget=3)
    for budget in range(4):
        assert plans.saving(budget) == pytest.approx(best_of_size(problem, budget), abs=1e-9)


@compiles_first
@given(problems(), st.integers(0, 8))
def test_positions_save_what_the_plan_says_and_keep_the_rules(problem, budget):
    plans = plan_budgets(**arguments(problem), max_budget=8)
    positions = plans.placement(budget).positions
    assert len(positions) <= budget
    assert set(positions) <= set(every_grid_position(problem))
    assert saving_of(problem, positions) == pytest.approx(plans.saving(budget), abs=1e-9)


@compiles_first
@given(problems())
def test_each_further_checkpoint_adds_something_and_no_more_than_the_one_before(problem):
    added = np.diff(plan_budgets(**arguments(problem), max_budget=8).savings)
    assert np.all(added > 0)
    assert np.all(np.diff(added) <= 1e-9)


@compiles_first
@given(problems())
def test_no_fewer_positions_save_as_much(problem):
    plans = plan_budgets(**arguments(problem), max_budget=8)
    for budget in range(9):
        fewest = len(plans.placement(budget).positions)
        if fewest:
            assert plans.saving(fewest - 1) < plans.saving(budget)


@compiles_first
@given(problems(), st.integers(0, 60))
def test_one_price_chooses_the_best_budget_at_that_price_and_the_fewest_on_a_tie(problem, price):
    plans = plan_budgets(**arguments(problem), max_budget=8)
    worth = [plans.saving(budget) - price * budget for budget in range(plans.savings.size)]
    best = max(worth)
    fewest = next(budget for budget, each in enumerate(worth) if each >= best - 1e-9)
    positions = plan_priced(**arguments(problem), price_per_checkpoint=price).positions
    assert saving_of(problem, positions) - price * len(positions) == pytest.approx(best, abs=1e-6)
    assert len(positions) == fewest


@compiles_first
@given(problems(), st.floats(1e-12, 1e12))
def test_scaling_the_weights_or_the_cost_changes_no_position(problem, scale):
    plain = plan_budgets(**arguments(problem), max_budget=4)
    scaled = plan_budgets(
        **arguments({**problem, "weights": problem["weights"] * scale, "cost": problem["cost"] / scale}),
        max_budget=4,
    )
    assert scaled.savings == pytest.approx(plain.savings, rel=1e-6)


def naive_recurrence(gains, shares, layers):
    """The recurrence as it is written, O(M N^2)."""
    saving = np.zeros(shares.size)
    found = [0.0]
    for _ in range(layers):
        saving = np.array(
            [0.0] + [np.max(saving[:j] + gains[:j] * (shares[j] - shares[:j])) for j in range(1, shares.size)]
        )
        found.append(saving[-1])
    return found


@pytest.mark.parametrize("shape", ["irregular", "smooth", "heavy-tailed", "quadratic cost"])
def test_thousands_of_depths_agree_with_the_recurrence_as_it_is_written(shape):
    random = np.random.default_rng(5)
    depths = np.sort(random.choice(np.arange(1, 50_000), 1500, replace=False))
    weights = {
        "smooth": np.ones(1500),
        "heavy-tailed": random.exponential(size=1500) ** 4,
    }.get(shape, random.random(1500))
    cost = (lambda p: p + 1e-4 * p.astype(float) ** 2) if shape == "quadratic cost" else None
    plans = plan_budgets(depths, weights, max_budget=12, cost=cost)
    gains = depths.astype(float) if cost is None else cost(depths)
    expected = naive_recurrence(gains, np.concatenate(([0.0], np.cumsum(weights))), 12)
    assert plans.savings == pytest.approx(expected, rel=1e-9)
    problem_saving = sum(
        weights[depths.searchsorted(p) : depths.searchsorted(q)].sum() * gains[depths.searchsorted(p)]
        for p, q in zip(
            plans.placement(12).positions, (*plans.placement(12).positions[1:], 50_000), strict=True
        )
    )
    assert problem_saving == pytest.approx(plans.saving(12), rel=1e-9)


def test_one_hot_depth_needs_one_checkpoint_however_large_the_budget():
    plans = plan_budgets([1000], [1.0], max_budget=64, grid=64)
    assert plans.placement(64).positions == (960,)
    assert plans.savings.tolist() == [0.0, 960.0]


def test_depths_that_share_a_grid_position_are_one_candidate_and_none_is_at_zero():
    plans = plan_budgets([3, 65, 70, 127, 130], [1, 1, 1, 1, 1], max_budget=5, grid=64)
    assert plans.placement(5).positions == (64, 128)


def test_depths_at_or_before_the_base_gain_nothing():
    assert plan_budgets([100, 200], [1, 1], max_budget=2, base=200).placement(2).positions == ()
    assert plan_priced([100, 200], [1, 1], price_per_checkpoint=0, base=200).positions == ()


@pytest.mark.parametrize("free_weight", [1.0, 1e15])
def test_tokens_that_cost_nothing_need_no_checkpoint_and_weigh_nothing(free_weight):
    weights = [free_weight, free_weight, 2.0]
    problem = {"depths": [50, 100, 300], "weights": weights, "cost": lambda p: np.maximum(p - 100, 0)}
    plans = plan_budgets(**problem, max_budget=3)
    assert plans.savings.tolist() == [0.0, 400.0]
    assert plans.placement(3).positions == plan_priced(**problem, price_per_checkpoint=0).positions == (300,)


def test_a_depth_that_next_to_nobody_reaches_is_worth_no_checkpoint():
    plans = plan_budgets([100, 200], [1.0, 1e-15], max_budget=2)
    assert plans.placement(2).positions == (100,)
    assert plans.savings.size == 2


@compiles_first
@given(st.dictionaries(st.integers(1, 3000), st.integers(-60, 20), min_size=1, max_size=12))
def test_a_budget_buys_one_position_for_each_step_that_adds_something_whatever_the_weights(exponents):
    depths = sorted(exponents)
    plans = plan_budgets(depths, [2.0 ** exponents[each] for each in depths], max_budget=len(depths))
    assert (np.diff(plans.savings) > 0).all()
    for budget in range(len(depths) + 1):
        positions = plans.placement(budget).positions
        assert len(positions) == min(budget, plans.savings.size - 1)
        assert set(positions) <= set(depths)


def test_a_flat_cost_leaves_nothing_to_save():
    assert plan_budgets([10, 20], [1, 1], max_budget=2, cost=np.zeros_like).savings.tolist() == [0.0]
    assert plan_priced([10, 20], [1, 1], price_per_checkpoint=0, cost=np.zeros_like).positions == ()


def test_no_depths_at_all_is_an_empty_plan():
    assert plan_budgets([], [], max_budget=3).placement(3).positions == ()


def test_a_checkpoint_that_just_earns_its_price_is_left_out():
    assert plan_priced([100, 200], [0.5, 0.5], price_per_checkpoint=50.0).positions == (100,)
    assert plan_priced([100, 200], [0.5, 0.5], price_per_checkpoint=100.0).positions == ()
    assert plan_priced([100, 200], [0.5, 0.5], price_per_checkpoint=np.inf).positions == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depths": [2, 1]}, "not ascending"),
        ({"depths": [-1, 1]}, "negative"),
        ({"depths": [1.5, 2.5]}, "whole number"),
        ({"depths": [1]}, "one weight a depth"),
        ({"weights": [1, -1]}, "negative or non-finite"),
        ({"weights": [1, float("nan")]}, "negative or non-finite"),
        ({"grid": 0}, "grid=0"),
        ({"base": -1}, "base=-1"),
        ({"max_budget": -1}, "max_budget=-1"),
        ({"cost": lambda p: -p}, "monotone cost"),
        ({"cost": lambda p: np.full(p.shape, np.inf)}, "non-finite"),
        ({"cost": lambda _: np.zeros(1)}, "shape"),
    ],
)
def test_wrong_input_is_refused_by_name(wrong, message):
    good = {"depths": [1, 2], "weights": [1, 1], "max_budget": 1}
    with pytest.raises(ConfigurationError, match=message):
        plan_budgets(**{**good, **wrong})


def test_a_negative_price_and_a_budget_beyond_the_plan_are_refused():
    with pytest.raises(ConfigurationError, match="price_per_checkpoint=-1"):
        plan_priced([1], [1], price_per_checkpoint=-1)
    with pytest.raises(ConfigurationError, match="max_budget=3"):
        plan_budgets([1], [1], max_budget=2).placement(3)
