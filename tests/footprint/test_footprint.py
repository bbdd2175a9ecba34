import dataclasses
import subprocess
import sys

import pytest

from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.footprint import Footprint, KVWindow, MeasuredBytes, PrefillCost


def test_two_numbers_are_enough():
    footprint = Footprint(checkpoint_bytes=3_293_184, kv_bytes_per_token=2_048)
    assert footprint.checkpoint_kv_tokens == 1608
    assert footprint.checkpoint_bytes_at(1) == footprint.checkpoint_bytes_at(10**6) == 3_293_184
    assert footprint.cost(100) == 100
    assert not footprint.is_stateless


def test_a_window_fills_and_then_stays():
    footprint = Footprint(checkpoint_bytes=1000 + 95 * 8, kv_bytes_per_token=16, windows=(KVWindow(95, 8),))
    assert footprint.recurrent_bytes == 1000
    assert [footprint.checkpoint_bytes_at(position) for position in (0, 10, 95, 96, 500)] == [
        1000,
        1080,
        1760,
        1760,
        1760,
    ]


def test_where_kv_is_free_a_state_has_no_price_in_it_and_where_states_are_free_they_cost_nothing():
    assert Footprint(checkpoint_bytes=1000, kv_bytes_per_token=0).checkpoint_kv_tokens is None
    assert Footprint(checkpoint_bytes=0, kv_bytes_per_token=1000).checkpoint_kv_tokens == 0


def test_a_model_without_state_is_stateless():
    assert Footprint(checkpoint_bytes=0, kv_bytes_per_token=2048).is_stateless


def test_values_are_frozen_and_options_are_named():
    footprint = Footprint(checkpoint_bytes=1, kv_bytes_per_token=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        footprint.checkpoint_bytes = 2
    with pytest.raises(TypeError):
        Footprint(1, 1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"checkpoint_bytes": -1, "kv_bytes_per_token": 1}, "checkpoint_bytes=-1"),
        ({"checkpoint_bytes": 1, "kv_bytes_per_token": -1}, "kv_bytes_per_token=-1"),
        (
            {"checkpoint_bytes": 1, "kv_bytes_per_token": 1, "windows": (KVWindow(95, 8),)},
            "count the full windows in",
        ),
    ],
)
def test_impossible_bytes_are_refused(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        Footprint(**options)


def test_impossible_windows_and_positions_are_refused():
    with pytest.raises(ConfigurationError, match="kept_tokens=-1"):
        KVWindow(-1, 8)
    with pytest.raises(InvalidRequestError, match="position=-1"):
        Footprint(checkpoint_bytes=1, kv_bytes_per_token=1).checkpoint_bytes_at(-1)


def test_measurements_in_any_order_give_a_footprint():
    cost = PrefillCost(unit="seconds", linear_per_token=1e-3)
    measured = [MeasuredBytes(200, 500, 4000), MeasuredBytes(30, 200, 600), MeasuredBytes(150, 500, 3000)]
    assert Footprint.from_measurements(measured, cost=cost) == Footprint(
        checkpoint_bytes=500, kv_bytes_per_token=20, cost=cost, settled_tokens=150
    )


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ([], "at least two different lengths"),
        ([MeasuredBytes(9, 1, 9), MeasuredBytes(9, 1, 9)], "at least two different lengths"),
        ([MeasuredBytes(0, 1, 0), MeasuredBytes(9, 1, 9)], "at least two different lengths"),
        ([MeasuredBytes(10, 5, 100), MeasuredBytes(20, 5, 150)], "the same bytes for every token"),
        ([MeasuredBytes(10, 5, 100), MeasuredBytes(20, 6, 200)], "beyond the longest window"),
    ],
)
def test_measurements_that_fit_no_model_are_refused(measured, reason):
    with pytest.raises(ConfigurationError, match=reason):
        Footprint.from_measurements(measured)


def test_importing_the_package_leaves_torch_and_transformers_unloaded():
    check = "import sys, milepost.footprint; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
