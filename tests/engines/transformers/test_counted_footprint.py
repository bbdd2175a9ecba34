"""Families without a byte formula: their tensors are counted, once every window is full."""

import pytest
import torch

from families import COUNTED_FAMILIES, tiny_config, tiny_model, tiny_prompt
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.footprint import measure_footprint
from milepost.engines.transformers.probe import probe_resume
from milepost.engines.transformers.snapshot import capture_state, slice_kv

torch.set_num_threads(1)


@pytest.mark.parametrize("family", COUNTED_FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_what_is_counted_is_what_a_long_prompt_holds(family, dtype):
    driver = driver_for(tiny_model(family, dtype))
    footprint = measure_footprint(driver, probe_resume(driver))
    live = driver.start()
    driver.advance(live, tiny_prompt(700)[0])

    assert footprint.checkpoint_bytes == capture_state(live.cache, 700).num_bytes
    assert footprint.kv_bytes_per_token * 700 == slice_kv(live.cache, 0, 700).num_bytes
    assert footprint.cost.unit == "tokens"


def test_a_window_longer_than_a_short_prompt_is_counted_full():
    """Published ones are 512 and 1,024 tokens; a count over 256 and 512 would find them still growing."""
    model = tiny_model("zaya")
    long_window = tiny_config("zaya")
    long_window.sliding_window = 600
    other = type(model)(long_window).eval()
    other.load_state_dict(model.state_dict())
    driver = driver_for(other)

    footprint = measure_footprint(driver, probe_resume(driver))

    live = driver.start()
    driver.advance(live, tiny_prompt(700)[0])
    assert footprint.checkpoint_bytes == capture_state(live.cache, 700).num_bytes
