"""A forecast says how likely the next request diverges where, and which branch points lie there."""

import math

import numpy as np
import pytest

from milepost.overlap import OverlapDistribution
from milepost.policies.forecast import Forecast
from milepost.store import BranchPoint

DEPTHS, WEIGHTS = [100, 200, 300], [0.5, 0.3, 0.2]


def a_forecast(branch_positions=()) -> Forecast:
    expected = OverlapDistribution(np.array(DEPTHS), np.array(WEIGHTS))
    return Forecast(expected, 0, [BranchPoint(position) for position in branch_positions])


@pytest.mark.parametrize("passed", [0, 50, 100, 250])
@pytest.mark.parametrize(
    ("start", "end"), [(0, math.inf), (100, 200), (101, 300), (200, 301), (301, math.inf)]
)
def test_the_chance_is_the_weight_in_between_given_what_others_own(start, end, passed):
    weight = sum(w for d, w in zip(DEPTHS, WEIGHTS, strict=True) if start <= d < end)
    rest = sum(w for d, w in zip(DEPTHS, WEIGHTS, strict=True) if d > passed) if passed else 1.0
    assert a_forecast().chance(start, end, passed) == pytest.approx(min(1.0, weight / rest))


def test_where_others_own_all_of_it_nothing_diverges():
    assert a_forecast().chance(0, math.inf, 300) == 0.0


def test_branch_points_are_found_between_two_positions_the_first_included():
    forecast = a_forecast([10, 20, 30])
    assert [point.position for point in forecast.between(10, 30)] == [10, 20]
    assert [point.position for point in forecast.between(11, math.inf)] == [20, 30]
    assert forecast.between(31, math.inf) == []
