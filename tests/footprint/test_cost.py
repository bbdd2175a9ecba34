import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.footprint import PrefillCost, WindowedAttention

terms = st.floats(0, 1e12)
costs = st.builds(
    PrefillCost,
    unit=st.just("flops"),
    linear_per_token=terms,
    recurrent_per_token=terms,
    attention_per_pair=terms,
    windows=st.lists(st.builds(WindowedAttention, st.integers(1, 300), terms), max_size=2).map(tuple),
)


@given(costs)
def test_nothing_costs_nothing(cost):
    assert cost(0) == 0


@given(costs, st.integers(0, 2000), st.integers(0, 2000))
def test_cost_never_falls(cost, left, right):
    assert cost(min(left, right)) <= cost(max(left, right))


@given(costs, st.lists(st.integers(0, 100_000), min_size=1))
def test_an_array_costs_what_its_elements_cost(cost, positions):
    np.testing.assert_array_equal(cost(np.array(positions)), [cost(position) for position in positions])


@given(st.integers(0, 400), st.integers(1, 300))
def test_attention_counts_every_pair_that_a_query_reads(num_tokens, window):
    full = PrefillCost(unit="flops", linear_per_token=0.0, attention_per_pair=1.0)
    windowed = PrefillCost(
        unit="flops", linear_per_token=0.0, windows=(WindowedAttention(window_tokens=window, per_pair=1.0),)
    )
    assert full(num_tokens) == sum(range(1, num_tokens + 1))
    assert windowed(num_tokens) == sum(min(query, window) for query in range(1, num_tokens + 1))


@given(costs, st.integers(0, 2000), st.integers(0, 2000))
def test_a_cost_is_its_linear_part_and_its_attention(cost, start, length):
    stop = start + length
    assert cost(stop) == pytest.approx(cost.linear(stop) + cost.attention(stop))
    assert cost.between(start, stop) == cost(stop) - cost(start)


def test_token_cost_is_the_identity():
    assert PrefillCost.tokens()(12_345) == 12_345


def test_what_every_pass_costs_is_not_part_of_the_function():
    cost = PrefillCost(unit="seconds", linear_per_token=1e-3, fixed_per_pass=0.5)
    assert cost(0) == 0
    assert cost.between(100, 200) == pytest.approx(0.1)


@pytest.mark.parametrize("term", [-1.0, float("nan"), float("inf")])
def test_terms_are_finite_and_not_negative(term):
    with pytest.raises(ConfigurationError, match="attention_per_pair"):
        PrefillCost(unit="flops", linear_per_token=1.0, attention_per_pair=term)
    with pytest.raises(ConfigurationError, match="window of 8"):
        PrefillCost(unit="flops", linear_per_token=1.0, windows=(WindowedAttention(8, term),))


def test_unknown_units_and_empty_windows_are_refused():
    with pytest.raises(ConfigurationError, match="one of tokens, flops, seconds"):
        PrefillCost(unit="hours", linear_per_token=1.0)
    with pytest.raises(ConfigurationError, match="window_tokens=0"):
        WindowedAttention(0, 1.0)


def test_positions_are_not_negative_and_in_order():
    with pytest.raises(InvalidRequestError, match="num_tokens=-1"):
        PrefillCost.tokens()(-1)
    with pytest.raises(InvalidRequestError, match="start=2 lies after stop=1"):
        PrefillCost.tokens().between(2, 1)
