"""The benchmark of the constants is worth nothing if a changed constant never reaches the policy."""

import numpy as np
import pytest
from benchmarks.sensitivity import CONSTANTS, Constant, Point, constant_row, moves

from milepost.overlap import OverlapModel
from milepost.policies.reuse_model import ReuseModel
from milepost.traces import open_trace

BY_NAME = {constant.name: constant for constant in CONSTANTS}


def test_the_constants_that_the_policy_is_made_of_are_all_there() -> None:
    assert {
        *("_CONTINUES", "_LEAST_OVERLAP_TOKENS", "_LEAST_MASS", "_PRICE_WEIGHT", "_LEAST_GAIN", "_BIDS"),
        *("_IDLE_WORTH", "_SHARE_LOST_BEYOND"),
        *("_KIND_PRIORS", "_BRANCH_PRIORS", "_LENGTH_COLUMNS", "_GENERATION_ROWS", "_LAST_VERSION"),
        *("PRIOR_USES", "_PRIOR_HAZARD", "_REFRESH_REQUESTS", "_SHARE_PRIOR", "_END_PRIOR"),
        *("decay", "max_support", "least_overlap_tokens", "bin_tokens"),
    } <= BY_NAME.keys()


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda constant: constant.name)
def test_a_constant_has_two_other_values_and_gets_its_own_back(constant: Constant) -> None:
    usual = constant.value
    less, more = constant.others.values()
    assert len({usual, less, more}) == 3
    for other in (less, more):
        with constant.set_to(other):
            assert constant.value == other
        assert constant.value is usual


def test_a_constant_gets_its_own_value_back_from_a_run_that_fails() -> None:
    constant = BY_NAME["_LEAST_GAIN"]
    usual = constant.value
    with pytest.raises(ZeroDivisionError), constant.set_to(0.5):
        _ = 1 / 0
    assert constant.value is usual


def test_what_is_built_meanwhile_uses_the_other_value() -> None:
    fresh_rates = ReuseModel().prompts.index.copy()
    with BY_NAME["_PRIOR_HAZARD"].set_to(0.1):
        assert (ReuseModel().prompts.index < fresh_rates).all()
    assert np.array_equal(ReuseModel().prompts.index, fresh_rates)


def test_what_is_built_meanwhile_uses_the_other_default() -> None:
    def sharing_rate() -> float:
        model = OverlapModel()
        for depth in (0, 0, 256):
            model.observe(depth, 512)
        return model.sharing_rate

    usual = sharing_rate()
    with BY_NAME["decay"].set_to(0.5):
        assert sharing_rate() > usual
    assert sharing_rate() == usual


def test_a_replay_moves_with_a_constant_and_back() -> None:
    requests = list(open_trace("synthetic:chat,requests=120,seed=1"))
    points = [Point("chat", requests, 20_000)]
    usual = [point.replay() for point in points]
    constant = BY_NAME["_LEAST_GAIN"]
    assert moves(constant, 1.0, points, usual)["chat"][0] < 0.0
    assert moves(constant, constant.value, points, usual) == {"chat": [0.0]}


@pytest.mark.parametrize(
    ("moved", "is_small"),
    [
        ({"chat": [0.004], "agents": [-0.029]}, False),
        ({"chat": [0.019], "agents": [-0.029]}, True),
        ({"chat": [0.031], "agents": [-0.031]}, False),
        ({"chat": [0.015], "agents": [0.015]}, False),
        ({"chat": [0.10, -0.09], "agents": [0.0]}, True),
    ],
)
def test_what_matters_is_marked(moved: dict[str, list[float]], is_small: bool) -> None:
    assert constant_row("decay 0.99 -> 0.98", moved).reached is is_small


def test_a_row_says_what_chance_does() -> None:
    row = constant_row("decay 0.99 -> 0.98", {"chat": [0.01, 0.03], "squality": [-0.02]})
    assert row.measured == "mean +0.0%, -2.0% (squality) to +2.0% ±1.0% (chat)"
