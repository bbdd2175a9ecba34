"""The decayed histogram agrees with a dictionary, and stays within its bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.overlap import DecayedHistogram


@given(st.lists(st.tuples(st.integers(-50, 50), st.floats(0.01, 1.0))), st.sampled_from([0.5, 0.9, 1.0]))
def test_it_agrees_with_a_dictionary(events, decay):
    histogram, expected = DecayedHistogram(decay=decay, max_support=1000), {}
    for value, weight in events:
        histogram.fade()
        histogram.add(value, weight)
        expected = {known: each * decay for known, each in expected.items()}
        expected[value] = expected.get(value, 0.0) + weight
    assert histogram.values.tolist() == sorted(expected)
    for value in range(-51, 52):
        assert histogram.weight_of(value) == pytest.approx(expected.get(value, 0.0))


@pytest.mark.parametrize(("merge_down", "kept"), [(True, [10, 30]), (False, [20, 30])])
def test_the_lightest_value_goes_to_its_shallower_neighbour(merge_down, kept):
    histogram = DecayedHistogram(decay=1.0, max_support=2, merge_down=merge_down)
    first, second = (10, 20) if merge_down else (20, 10)
    histogram.add(first, 1.0)
    histogram.add(30, 2.0)
    histogram.add(second, 0.5)
    assert histogram.values.tolist() == kept
    assert histogram.weights.tolist() == [1.5, 2.0]


def test_at_the_shallow_edge_the_lightest_value_is_forgotten():
    histogram = DecayedHistogram(decay=1.0, max_support=2)
    for value, weight in ((20, 1.0), (30, 2.0), (10, 0.5)):
        histogram.add(value, weight)
    assert histogram.values.tolist() == [20, 30]
    assert histogram.weights.tolist() == [1.0, 2.0]


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=200), st.booleans())
def test_the_number_of_values_is_bounded(values, merge_down):
    histogram = DecayedHistogram(decay=0.99, max_support=8, merge_down=merge_down)
    for value in values:
        histogram.fade()
        histogram.add(value, 1.0)
        assert histogram.values.size <= 8
        assert all(a < b for a, b in zip(histogram.values, histogram.values[1:], strict=False))
