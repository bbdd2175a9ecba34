"""Numbers of callers: whatever plainly means the right thing is taken, and nothing else."""

from fractions import Fraction

import numpy as np
import pytest

from milepost.counts import as_count, as_number
from milepost.errors import ConfigurationError, InvalidRequestError


@pytest.mark.parametrize("value", [5, 5.0, np.int64(5), np.uint8(5), np.float32(5), np.array(5), Fraction(5)])
def test_what_is_plainly_a_whole_number_is_one(value):
    number = as_count("top_k", value, least=1, most=5)
    assert (number, type(number)) == (5, int)


@pytest.mark.parametrize(
    "value", [5.5, "5", True, np.True_, None, [5], np.array([5]), float("nan"), float("inf"), b"5", 0, 9, -1]
)
def test_what_is_not_is_refused_with_the_rule(value):
    with pytest.raises(InvalidRequestError, match=r"top_k=.*; give a whole number of 1 to 8"):
        as_count("top_k", value, least=1, most=8, error=InvalidRequestError)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2)])
def test_what_is_plainly_a_number_is_one(value):
    number = as_number("temperature", value, most=2.0)
    assert (number, type(number)) == (0.5, float)


@pytest.mark.parametrize(
    "value", ["0.5", True, np.False_, None, [0.5], float("nan"), float("inf"), 1j, -0.1, 2.1, 10**400]
)
def test_what_is_no_number_is_refused_with_the_rule(value):
    with pytest.raises(ConfigurationError, match=r"temperature=.*; give a finite number of 0 to 2"):
        as_number("temperature", value, most=2.0, rule="0 to 2")
