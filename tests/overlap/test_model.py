"""The overlap model finds where prompts diverge, in whichever coordinate it repeats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import ConfigurationError
from milepost.overlap import FromEnd, FromStart, OverlapModel


def weight_between(prediction, low, high):
    inside = (prediction.depths >= low) & (prediction.depths <= high)
    return float(prediction.weights[inside].sum())


def lengths(count, low=2000, high=20_000, seed=1):
    return [int(length) for length in np.random.default_rng(seed).integers(low, high, count)]


def test_before_any_evidence_any_depth_is_possible_and_the_end_likelier():
    model = OverlapModel()
    prediction = model.predict(3200)
    # Half of the sixteenths of the prompt, its last sixteenth apart, are as likely as one another.
    sixteenths = [weight_between(prediction, 200 * i, 200 * (i + 1) - 1) for i in range(1, 15)]
    assert min(sixteenths) > 0.0
    assert sorted(sixteenths)[0] == pytest.approx(sorted(sixteenths)[6])
    assert weight_between(prediction, 3000, 3199) > 4 * max(sixteenths)


def test_a_shared_system_prompt_is_found_from_the_start():
    model = OverlapModel()
    for length in lengths(30):
        model.observe(1500, length)
    assert weight_between(model.predict(9000), 1484, 1500) > 0.8
    assert model.coordinate_shares[0] > 10 * model.coordinate_shares[1]


def test_questions_after_a_document_are_found_from_the_end():
    model = OverlapModel()
    for length in lengths(30):
        model.observe(length - 100, length)
    assert weight_between(model.predict(9000), 9000 - 132, 9000 - 84) > 0.85
    assert model.coordinate_shares[1] > 0.9


def test_conversations_that_go_on_share_all_but_the_last_token_they_need():
    model = OverlapModel()
    for length in lengths(30):
        model.observe(length, length)
    assert weight_between(model.predict(9000), 8984, 8999) > 0.9


def test_two_kinds_of_traffic_at_once_each_keep_their_coordinate():
    model = OverlapModel()
    for length in lengths(60):
        model.observe(1500, length)
        model.observe(length, length)
    prediction = model.predict(9000)
    assert weight_between(prediction, 1484, 1500) == pytest.approx(0.5, abs=0.1)
    assert weight_between(prediction, 8984, 8999) == pytest.approx(0.5, abs=0.1)


def test_overlaps_spread_over_the_whole_prompt_stay_spread():
    model = OverlapModel()
    random = np.random.default_rng(3)
    for length in lengths(200, low=10_000):
        model.observe(int(random.integers(64, length)), length)
    prediction = model.predict(16_000)
    quarters = [weight_between(prediction, low, low + 3999) for low in range(0, 16_000, 4000)]
    assert min(quarters) > 0.1


def test_the_model_forgets_what_no_longer_happens():
    model = OverlapModel()
    for length in lengths(300):
        model.observe(1500, length)
    for length in lengths(200):
        model.observe(length - 100, length)
    prediction = model.predict(9000)
    assert weight_between(prediction, 1484, 1500) < 0.2
    assert weight_between(prediction, 8868, 8916) > 0.6


def test_a_bin_in_a_shorter_prompt_than_it_reaches_is_ignored():
    model = OverlapModel()
    for length in lengths(30):
        model.observe(1500, length)
    prediction = model.predict(800)
    assert prediction.depths.max() < 800
    assert prediction.weights.sum() == pytest.approx(1.0)


def test_sharing_rate_counts_requests_that_share_nothing_worth_keeping():
    model = OverlapModel()
    assert model.sharing_rate == 0.5
    for _ in range(100):
        model.observe(0, 5000)
        model.observe(20, 5000)  # the chat template's first tokens
        model.observe(4000, 5000)
    assert model.sharing_rate == pytest.approx(1 / 3, abs=0.02)
    assert model.num_shared == 100


def test_a_branch_point_of_the_prompt_is_expected_to_return_as_often_as_others_have():
    returning, passing = OverlapModel(), OverlapModel()
    random = np.random.default_rng(4)
    for length in lengths(80, low=10_000):
        branch_point = int(random.integers(1000, 9000))
        for _ in range(4):
            returning.observe(branch_point, length)
        passing.observe(branch_point, length)
    assert returning.branch_point_rate > 0.5
    assert passing.branch_point_rate < 0.1
    assert weight_between(returning.predict(12_000, branch_depth=5000), 5000, 5000) > 0.5
    assert weight_between(passing.predict(12_000, branch_depth=5000), 5000, 5000) < 0.15


def test_a_depth_that_returns_where_prompts_end_is_no_return_of_a_branch_point():
    model = OverlapModel()
    model.observe(1000, 3000)
    for _ in range(50):
        model.observe(1000, 1010)
    assert model.branch_point_rate < 0.5


def test_going_on_is_no_divergence():
    model = OverlapModel()
    assert model.is_divergence(5000, 9000)
    assert not model.is_divergence(9000, 9000)
    assert not model.is_divergence(10, 9000)


def test_reading_changes_nothing():
    model = OverlapModel()
    for length in lengths(20):
        model.observe(length - 100, length)
    first = model.predict(7000, branch_depth=500)
    second = model.predict(7000, branch_depth=500)
    assert np.array_equal(first.depths, second.depths)
    assert np.array_equal(first.weights, second.weights)
    with pytest.raises(ValueError, match="read-only"):
        first.weights[0] = 1.0


@given(
    st.lists(
        st.tuples(st.integers(0, 5000) | st.sampled_from([100, 200]), st.integers(0, 3000)), max_size=60
    ),
    st.integers(1, 9000),
    st.none() | st.integers(1, 9000),
)
def test_a_prediction_is_a_pmf_over_depths_inside_the_prompt(events, num_tokens, branch_depth):
    model = OverlapModel(max_support=4, bin_tokens=64)
    for overlap_depth, rest in events:
        model.observe(overlap_depth, overlap_depth + rest)
    known = None if branch_depth is None else min(branch_depth, num_tokens)
    prediction = model.predict(num_tokens, branch_depth=known)
    assert np.all(np.diff(prediction.depths) >= 0)
    assert np.all(prediction.weights >= 0)
    if num_tokens == 1:
        assert prediction.depths.size == 0
    else:
        assert 0 < prediction.depths[0] <= prediction.depths[-1] < num_tokens
        assert prediction.weights.sum() == pytest.approx(1.0)
    assert prediction.depths.size <= 2 * 4 + 32 + (num_tokens // 64 + 1).bit_length() + 2 + 1
    assert 0.0 < model.sharing_rate < 1.0
    assert 0.0 < sum(model.coordinate_shares) < 1.0
    assert 0.0 < model.branch_point_rate < 1.0


def test_other_coordinates_take_part_by_the_protocol_alone():
    class FromMiddle:
        deeper_measure_is_larger = True

        def measure(self, overlap_depth, num_tokens):
            return (overlap_depth - num_tokens // 2) // 16 * 16

        def depths(self, measures, num_tokens):
            return measures + num_tokens // 2

    model = OverlapModel(coordinates=[FromStart(bin_tokens=16), FromEnd(bin_tokens=16), FromMiddle()])
    for length in lengths(40):
        model.observe(length // 2, length)
    assert model.coordinate_shares[2] > 0.8
    assert weight_between(model.predict(9000), 4484, 4516) > 0.8


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OverlapModel(bin_tokens=0), "bin_tokens=0"),
        (lambda: OverlapModel(least_overlap_tokens=0), "least_overlap_tokens=0"),
        (lambda: OverlapModel(decay=1.5), "decay=1.5"),
        (lambda: OverlapModel(max_support=0), "max_support=0"),
        (lambda: OverlapModel().observe(11, 10), "overlap_depth=11"),
        (lambda: OverlapModel().observe(-1, 10), "overlap_depth=-1"),
    ],
)
def test_wrong_input_is_refused_by_name(build, message):
    with pytest.raises(ConfigurationError, match=message):
        build()
