"""What a client says of its messages is a hint: what makes sense is taken, and nonsense is left out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.hosted.hints import breakpoints_of
from milepost.tokens import as_breakpoints


def test_positions_inside_the_prompt_are_taken_up_to_its_end():
    assert breakpoints_of({"milepost_breakpoints": [1, 64.0, 100]}, num_tokens=100) == (1, 64, 100)
    assert breakpoints_of({"milepost_breakpoints": (7,), "other": 1}, num_tokens=100) == (7,)


@pytest.mark.parametrize(
    "parameters", [None, {}, [3], "text", {"milepost_breakpoints": 7}, {"breakpoints": [7]}]
)
def test_where_nothing_is_said_there_is_none(parameters):
    assert breakpoints_of(parameters, num_tokens=100) == ()


@pytest.mark.parametrize(
    "nonsense",
    [0, -1, 101, math.nan, math.inf, -math.inf, 10**400, 0.5, 0.999, 1e-9, 7.5, 99.99, None, "7", True, [7]],
)
def test_nonsense_is_left_out(nonsense):
    assert breakpoints_of({"milepost_breakpoints": [nonsense, 9]}, num_tokens=100) == (9,)


@given(
    given=st.lists(st.one_of(st.integers(), st.floats(), st.booleans(), st.text(), st.none())),
    num_tokens=st.integers(1, 1000),
)
def test_whatever_a_client_says_the_cache_takes_what_is_left_of_it(given, num_tokens):
    found = breakpoints_of({"milepost_breakpoints": given}, num_tokens=num_tokens)
    assert set(as_breakpoints(found, num_tokens=num_tokens)) == set(found)
