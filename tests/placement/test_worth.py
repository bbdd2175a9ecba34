"""The plan at a price of memory against brute force over its definition, and the laws that follow from it."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.placement import PlacementRequest
from milepost.placement.worth import plan_worth

# The first plan of a process compiles or loads the kernels.
compiles_first = settings(deadline=None, derandomize=True)

LONGEST = 20


@st.composite
def problems(draw):
    """Few depths, whole rates and prices (so that no sum is rounded), any monotone cost."""
    num_tokens = draw(st.integers(1, LONGEST))
    base = draw(st.just(0) | st.integers(0, num_tokens))
    steps = draw(st.lists(st.integers(0, 9), min_size=LONGEST + 1, max_size=LONGEST + 1))
    table = np.cumsum(steps)
    depths = sorted(draw(st.lists(st.integers(0, LONGEST), max_size=6)))
    branches = draw(st.lists(st.tuples(st.integers(0, LONGEST), st.integers(0, 9)), max_size=2))
    costs = [None, table.__getitem__, lambda p: p + p * p]
    request = PlacementRequest(
        num_tokens=num_tokens,
        overlap_depth=num_tokens,
        resume_position=base,
        fallback_position=draw(st.integers(0, base)),
        grid=draw(st.sampled_from([1, 2, 3, 8])),
        checkpoint_bytes=draw(st.integers(0, 9)),
        kv_bytes_per_token=draw(st.integers(0, 2)),
        resident_kv_tokens=draw(st.just(0) | st.integers(0, num_tokens)),
        affordable_position=draw(st.none() | st.integers(0, LONGEST)),
        cost=draw(st.sampled_from(costs)),
    )
    known = {
        "depths": np.array(depths, np.int64),
        "rates": np.array(
            draw(st.lists(st.integers(0, 9), min_size=len(depths), max_size=len(depths))), float
        ),
        "branches": [(depth, float(rate)) for depth, rate in branches],
        "price_per_byte": float(draw(st.integers(0, 12))),
    }
    return request, known


class Definition:
    """The objective as the docstring words it, term by term."""

    def __init__(self, request, known):
        self.request, self.price = request, known["price_per_byte"]
        self.parting = [*zip(known["depths"].tolist(), known["rates"].tolist(), strict=True)]
        self.parting += known["branches"]
        affordable = (
            request.num_tokens if request.affordable_position is None else request.affordable_position
        )
        self.last = min(request.num_tokens, affordable)

    def cost(self, position):
        if self.request.cost is None:
            return position
        return int(self.request.cost(np.array([position]))[0])

    def placeable(self):
        """Every position of the grid that may be placed, whether or not anybody parts there."""
        grid, base = self.request.grid, self.request.resume_position
        return [p for p in range(grid, self.last + 1, grid) if p > base]

    def candidates(self):
        """Those of them that are the deepest below some depth where requests part."""
        grid, base = self.request.grid, self.request.resume_position
        floored = {min(d, self.last) // grid * grid for d, rate in self.parting if rate}
        return sorted(p for p in floored if p > base)

    def saving(self, plan):
        before, saved = self.request.resume_position, 0.0
        for position in plan:
            rate = sum(r for depth, r in self.parting if depth >= position)
            saved += (self.cost(position) - self.cost(before)) * rate
            before = position
        return saved

    def lost(self, plan):
        """What is lost where the first position takes the place of the checkpoint resumed from."""
        base = self.request.resume_position
        if not plan or base == 0:
            return float("inf")
        rate = sum(r for depth, r in self.parting if base <= depth < plan[0])
        return rate * (self.cost(base) - self.cost(self.request.fallback_position))

    def memory(self, plan, *, replaces):
        request = self.request
        missing = max(0, plan[-1] - request.resident_kv_tokens) if plan else 0
        return (len(plan) - replaces) * request.checkpoint_bytes + missing * request.kv_bytes_per_token

    def num_cuts(self, plan):
        """How many of a plan's positions are not the first in their call."""
        ends = self.request.call_ends
        calls = {sum(end < position for end in ends) for position in plan} if ends else plan
        return len(plan) - len(calls)

    def worth(self, plan, least_gain=0.0, capture=0.0, cut=0.0):
        """Saving minus what the memory is worth elsewhere and what the captures and cuts cost."""
        request, price = self.request, self.price
        least = least_gain * self.saving(self.candidates())
        per_checkpoint = max(price * request.checkpoint_bytes + capture, least)
        first = min(per_checkpoint, self.lost(plan) + capture) if plan else 0.0
        kv = self.memory(plan, replaces=False) - len(plan) * request.checkpoint_bytes
        cuts = cut * self.num_cuts(plan) if self.num_cuts(plan) else 0.0
        return self.saving(plan) - first - max(0, len(plan) - 1) * per_checkpoint - price * kv - cuts


def positions_of(request, depths, rates, **known) -> tuple[int, ...]:
    return plan_worth(request, depths, rates, **known).placement.positions


def is_last_in_call(position, request):
    return any(position <= end < position + request.grid for end in request.call_ends)


def subsets(positions):
    return (plan for size in range(len(positions) + 1) for plan in combinations(positions, size))


@settings(compiles_first, max_examples=300)
@given(problems(), st.sampled_from([0.0, 0.0, 0.125, 0.5]), st.sampled_from([0.0, 0.0, 1.0, 20.0]))
def test_no_subset_of_the_depths_is_worth_more(problem, least_gain, capture):
    request, known = problem
    wanted = Definition(request, known)
    positions = positions_of(request, **known, least_gain=least_gain, cost_per_capture=capture)
    assert set(positions) <= set(wanted.candidates())
    best = max(wanted.worth(plan, least_gain, capture) for plan in subsets(wanted.candidates()))
    assert wanted.worth(positions, least_gain, capture) == pytest.approx(best, abs=1e-9)


@settings(compiles_first, max_examples=300)
@given(
    problems(),
    st.sets(st.integers(1, LONGEST), min_size=1, max_size=4),
    st.sampled_from([0.0, 1.0, 9.0, 40.0, float("inf")]),
    st.sampled_from([0.0, 0.0, 3.0]),
)
def test_where_a_call_leaves_one_state_no_choice_of_positions_and_cuts_is_worth_more(
    problem, ends, cut, capture
):
    request, known = problem
    request = replace(request, call_ends=tuple(sorted(ends)))
    wanted = Definition(request, known)
    positions = positions_of(request, **known, cost_per_capture=capture, cost_per_cut=cut)
    assert wanted.num_cuts(positions) == 0 or cut < float("inf")
    among = {*wanted.candidates(), *(p for p in wanted.placeable() if is_last_in_call(p, request))}
    best = max(wanted.worth(plan, 0.0, capture, cut) for plan in subsets(sorted(among)))
    assert wanted.worth(positions, 0.0, capture, cut) == pytest.approx(best, abs=1e-9)


def test_where_a_call_ends_a_state_takes_no_cut():
    request = PlacementRequest(num_tokens=192, overlap_depth=192, call_ends=(96, 192))
    depths, rates = np.array([100, 180]), np.ones(2)
    assert positions_of(request, depths, rates, cost_per_cut=50.0) == (96, 180)
    assert positions_of(request, depths, rates, cost_per_cut=3.0) == (100, 180)
    assert positions_of(request, depths, rates) == (96, 180)


def test_of_two_positions_that_cost_the_same_the_one_that_takes_no_cut_goes_on():
    table = np.array([0, 1, 5, 5, 9])
    request = PlacementRequest(
        num_tokens=5,
        overlap_depth=5,
        checkpoint_bytes=1,
        cost=lambda p: table[np.minimum(p, 4)],
        call_ends=(2, 3, 5),
    )
    known = {
        "depths": np.array([1, 2, 3, 4]),
        "rates": np.array([0.9, 0.1, 4.0, 5.0]),
        "branches": [],
        "price_per_byte": 0.1,
    }
    wanted = Definition(request, known)
    positions = positions_of(request, **known, cost_per_cut=5.0)
    best = max(wanted.worth(plan, cut=5.0) for plan in subsets(wanted.candidates()))
    assert wanted.worth(positions, cut=5.0) == pytest.approx(best)
    assert positions == (1, 3, 4)


@settings(compiles_first, max_examples=150)
@given(problems())
def test_no_other_position_of_the_grid_would_have_been_better(problem):
    """Where KV costs the same everywhere and recomputing costs no less for each token further."""
    request, known = problem
    request = replace(
        request,
        cost=None if request.cost is None else lambda p: p + p * p,
        resident_kv_tokens=request.num_tokens if request.resident_kv_tokens else 0,
        grid=max(2, request.grid),
    )
    wanted = Definition(request, known)
    positions = positions_of(request, **known)
    assert wanted.worth(positions) == pytest.approx(max(map(wanted.worth, subsets(wanted.placeable()))))


@compiles_first
@given(problems(), st.integers(1, 20))
def test_dearer_memory_is_never_taken_more_of(problem, dearer):
    request, known = problem
    taken = []
    for price in (known["price_per_byte"], known["price_per_byte"] + dearer):
        wanted = Definition(request, known | {"price_per_byte": price})
        plan = positions_of(request, **known | {"price_per_byte": price})
        taken.append(wanted.memory(plan, replaces=wanted.lost(plan) < price * request.checkpoint_bytes))
    assert taken[0] >= taken[1]


@compiles_first
@given(problems())
def test_free_memory_takes_every_depth_that_saves_anything(problem):
    request, known = problem
    wanted = Definition(request, known)
    positions = positions_of(request, **known | {"price_per_byte": 0.0})
    assert wanted.saving(positions) == wanted.saving(wanted.candidates())


@compiles_first
@given(problems(), st.integers(0, 4))
def test_of_too_many_those_with_the_most_requests_behind_them_stay(problem, most):
    request, known = problem
    whole = positions_of(request, **known)
    capped = positions_of(replace(request, max_checkpoints=most), **known)
    assert len(capped) <= most
    assert capped == whole[:most]


@compiles_first
@given(problems())
def test_planning_changes_nothing_and_repeats(problem):
    request, known = problem
    before = known["depths"].copy(), known["rates"].copy(), list(known["branches"])
    first = plan_worth(request, **known)
    assert plan_worth(request, **known) == first
    assert np.array_equal(before[0], known["depths"])
    assert np.array_equal(before[1], known["rates"])
    assert before[2] == known["branches"]


def plan(
    num_tokens=1000, *, depths=(), rates=(), branches=(), price=0.0, least_gain=0.0, capture=0.0, **known
):
    return positions_of(
        PlacementRequest(num_tokens=num_tokens, overlap_depth=known.get("resume_position", 0), **known),
        np.array(depths, np.int64),
        np.array(rates, float),
        branches=branches,
        price_per_byte=price,
        least_gain=least_gain,
        cost_per_capture=capture,
    )


def test_without_depths_nothing_is_placed():
    assert plan() == ()
    assert plan(depths=[500], rates=[0.0]) == ()
    assert plan(depths=[500], rates=[0.1], affordable_position=0) == ()
    assert plan(depths=[500], rates=[0.1], max_checkpoints=0) == ()


def test_depths_are_floored_to_the_grid_and_to_what_the_budget_holds():
    assert plan(depths=[100, 500, 900], rates=[0.1] * 3, grid=64) == (64, 448, 896)
    assert plan(depths=[100, 500, 900], rates=[0.1] * 3, grid=64, affordable_position=600) == (64, 448, 576)


def test_a_state_has_to_save_more_than_its_capture_costs():
    assert plan(depths=[500], rates=[0.1], capture=49.0) == (500,)
    assert plan(depths=[500], rates=[0.1], capture=51.0) == ()
    assert plan(depths=[400, 500], rates=[0.1, 0.1], capture=9.0) == (400, 500)
    assert plan(depths=[400, 500], rates=[0.1, 0.1], capture=11.0) == (400,)


def test_one_that_takes_the_place_of_another_is_captured_at_the_same_cost():
    known = {"resume_position": 400, "depths": [500], "rates": [0.1], "checkpoint_bytes": 1, "price": 1000.0}
    assert plan(**known, capture=9.0) == (500,)
    assert plan(**known, capture=11.0) == ()


def test_a_state_has_to_save_more_than_its_bytes_are_worth():
    known = {"depths": [500], "rates": [0.1], "checkpoint_bytes": 10}
    assert plan(**known, price=4.9) == (500,)
    assert plan(**known, price=5.1) == ()


def test_kv_that_is_stored_already_costs_nothing():
    known = {"depths": [500], "rates": [0.1], "kv_bytes_per_token": 1, "price": 0.15}
    assert plan(**known) == ()
    assert plan(**known, resident_kv_tokens=500) == (500,)


def test_only_the_deepest_pays_for_kv():
    known = {"depths": [400, 500], "rates": [0.1, 0.1], "kv_bytes_per_token": 1}
    # Both positions at 0.2 saved for a token up to 400 and 0.1 from there on.
    assert plan(**known, price=0.09) == (400, 500)
    assert plan(**known, price=0.11) == (400,)


def test_a_checkpoint_may_take_the_place_of_one_that_nobody_will_miss():
    known = {"resume_position": 400, "depths": [450, 500], "checkpoint_bytes": 1, "price": 1000.0}
    assert plan(**known, rates=[0.0, 0.1]) == (500,)
    assert plan(**known, rates=[0.1, 0.1]) == (450,), "at 500 it would be missed by those who part at 450"
    assert plan(**known, rates=[0.1, 0.1], fallback_position=395) == (450,)
    assert plan(**known | {"depths": [400, 500]}, rates=[3.0, 0.1]) == (), "missed by those who part at 400"
    assert plan(**known | {"depths": [410, 500]}, rates=[3.0, 0.1], grid=100, fallback_position=399) == (500,)
    assert plan(**known | {"depths": [410, 500]}, rates=[3.0, 0.1], grid=100) == ()


def test_the_first_prompt_has_no_checkpoint_whose_place_could_be_taken():
    assert plan(depths=[500], rates=[0.1], checkpoint_bytes=1, price=1000.0) == ()


def test_a_junction_is_a_depth_like_any_other():
    alone = plan(depths=[300, 700], rates=[0.1, 0.2])
    assert plan(depths=[700], rates=[0.2], branches=[(300, 0.1)]) == alone == (300, 700)


def test_a_quadratic_cost_prefers_the_deeper_of_two_equals():
    known = {"depths": [300, 700], "rates": [0.3, 0.2], "checkpoint_bytes": 1, "price": 50.0}
    assert plan(**known) == (300, 700)
    dear = known | {"price": 120.0}
    assert plan(**dear) == (300,)
    assert plan(**dear, cost=lambda p: p * (p / 500.0)) == (700,)


def test_what_hardly_adds_to_the_saving_is_left_out_even_where_memory_is_free():
    known = {"depths": [10, 900], "rates": [0.001, 1.0]}
    assert plan(**known) == (10, 900)
    assert plan(**known, least_gain=1 / 256) == (900,)


def test_a_thousand_depths_are_planned_as_a_quadratic_recurrence_plans_them():
    random = np.random.default_rng(3)
    depths = np.sort(random.choice(np.arange(1, 60_000), 1000, replace=False))
    rates = random.exponential(size=1000) ** 3 / 1000
    state, kv, price = 1500, 1, 1e-3 * rates.sum()
    request = PlacementRequest(num_tokens=60_000, checkpoint_bytes=state, kv_bytes_per_token=kv)
    positions = positions_of(request, depths, rates, price_per_byte=price)
    tails = rates[::-1].cumsum()[::-1]
    best = np.empty(1000)
    for j in range(1000):
        onwards = best[:j] + (depths[j] - depths[:j]) * tails[j]
        best[j] = max(depths[j] * tails[j], onwards.max(initial=-np.inf)) - price * state
    wanted = (best - price * kv * depths).max()
    chosen = np.searchsorted(depths, positions)
    gaps = np.diff(positions, prepend=0)
    worth = (gaps * tails[chosen]).sum() - price * (state * len(positions) + kv * positions[-1])
    assert 3 < len(positions) < 200
    assert worth == pytest.approx(wanted, rel=1e-9)
