import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import ConfigurationError
from milepost.footprint import PrefillCost, WindowedAttention, calibrate, fit_seconds

FLOPS = PrefillCost(
    unit="flops",
    linear_per_token=6e9,
    recurrent_per_token=2e8,
    attention_per_pair=2e5,
    windows=(WindowedAttention(128, 1e5),),
)
LENGTHS = (64, 128, 512, 2048, 8192)


def seconds_of(cost, num_tokens, *, fixed, per_linear, per_attention):
    return fixed + per_linear * cost.linear(num_tokens) + per_attention * cost.attention(num_tokens)


@given(st.floats(0, 0.1), st.floats(1e-14, 1e-11), st.floats(0, 1e-10))
def test_a_machine_of_constant_speeds_is_found_exactly(fixed, per_linear, per_attention):
    speeds = {"fixed": fixed, "per_linear": per_linear, "per_attention": per_attention}
    fitted = fit_seconds(FLOPS, [(length, seconds_of(FLOPS, length, **speeds)) for length in LENGTHS])
    assert fitted.unit == "seconds"
    for length in (1, 100, 5000, 20_000):
        expected = seconds_of(FLOPS, length, **speeds)
        assert fitted.fixed_per_pass + fitted(length) == pytest.approx(expected, rel=1e-3)


@given(st.lists(st.floats(1e-4, 1e3), min_size=5, max_size=5))
def test_whatever_the_timings_the_function_is_a_cost_or_is_refused(seconds):
    try:
        fitted = fit_seconds(FLOPS, zip(LENGTHS, seconds, strict=True))
    except ConfigurationError:
        return
    assert fitted(0) == 0 < fitted(64) <= fitted(8192)


def test_noise_of_a_tenth_moves_the_prediction_by_about_a_tenth():
    noise = random.Random(0)
    speeds = {"fixed": 0.002, "per_linear": 1e-12, "per_attention": 3e-12}
    timings = [
        (length, seconds_of(FLOPS, length, **speeds) * noise.uniform(0.9, 1.1))
        for length in LENGTHS
        for _ in range(5)
    ]
    assert fit_seconds(FLOPS, timings)(4096) == pytest.approx(
        seconds_of(FLOPS, 4096, **speeds) - 0.002, rel=0.1
    )


def test_a_model_without_attention_is_fitted_by_a_straight_line():
    fitted = fit_seconds(PrefillCost.tokens(), [(length, 0.25 + length * 1e-3) for length in LENGTHS])
    assert fitted.fixed_per_pass == pytest.approx(0.25)
    assert fitted(1000) == pytest.approx(1.0)
    assert fitted.attention_per_pair == 0


def test_calibration_warms_up_once_and_keeps_the_fastest_of_the_repeats():
    asked = []

    def measure(num_tokens):
        asked.append(num_tokens)
        # The first pass and every second one are disturbed.
        disturbed = len(asked) % 2
        return num_tokens * 1e-3 + 5.0 * disturbed

    fitted = calibrate(PrefillCost.tokens(), measure, lengths=(30, 10, 20), repeats=2)
    assert asked == [10, 10, 10, 20, 20, 30, 30]
    assert fitted(100) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("timings", "reason"),
    [
        ([], "three different lengths"),
        ([(64, 1.0), (64, 1.1), (128, 2.0)], "three different lengths"),
        ([(64, 1.0), (128, 0.0), (256, 2.0)], "0.0 seconds for 128 tokens"),
        ([(64, 1.0), (128, float("nan")), (256, 2.0)], "nan seconds"),
        ([(64, 3.0), (128, 2.0), (256, 1.0)], "measure longer prompts"),
    ],
)
def test_timings_that_say_nothing_are_refused(timings, reason):
    with pytest.raises(ConfigurationError, match=reason):
        fit_seconds(FLOPS, timings)


def test_no_repeats_are_refused():
    with pytest.raises(ConfigurationError, match="repeats=0"):
        calibrate(FLOPS, lambda num_tokens: 1.0, repeats=0)
