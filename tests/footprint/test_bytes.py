"""Byte formulas against the tensors of running models: not one byte off, in any family."""

import pytest
import torch
from real_tensors import prefill

import families
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.snapshot import capture_state, slice_kv
from milepost.footprint import Footprint, MeasuredBytes

DTYPES = [torch.float32, torch.bfloat16]
# Inside, at the edge of and beyond the tiny models' windows of 96 tokens, on and off every chunk size.
LENGTHS = [1, 2, 64, 95, 96, 137, 200]
# The engine carries MiniMax's state in fp32; unmodified transformers keeps it in the model's type.
AS_UPSTREAM = [
    (family, dtype)
    for family in families.FORMULA_FAMILIES
    for dtype in DTYPES
    if (family, dtype) != ("minimax", torch.bfloat16)
]


@pytest.mark.parametrize(("family", "dtype"), AS_UPSTREAM)
def test_formula_equals_the_tensors_that_transformers_holds(family, dtype):
    model = families.tiny_model(family, dtype)
    footprint = Footprint.from_config(model.config)
    for length in LENGTHS:
        run = prefill(model, families.tiny_prompt(length))
        assert run.state_bytes == footprint.checkpoint_bytes_at(length)
        assert run.sequence_bytes == footprint.kv_bytes_per_token * length


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", families.FORMULA_FAMILIES)
def test_formula_equals_what_the_engine_stores(family, dtype):
    driver = driver_for(families.tiny_model(family, dtype))
    footprint = Footprint.from_config(driver.model.config)
    for length in LENGTHS:
        live = driver.start()
        driver.advance(live, families.tiny_prompt(length)[0])
        assert capture_state(live.cache, length).num_bytes == footprint.checkpoint_bytes_at(length)
        assert slice_kv(live.cache, 0, length).num_bytes == footprint.kv_bytes_per_token * length


@pytest.mark.parametrize("family", families.FORMULA_FAMILIES)
def test_measuring_a_running_model_gives_what_the_formula_gives(family):
    model = families.tiny_model(family)
    runs = {length: prefill(model, families.tiny_prompt(length)) for length in (40, 137, 200)}
    measured = Footprint.from_measurements(
        MeasuredBytes(length, run.state_bytes, run.sequence_bytes) for length, run in runs.items()
    )
    formula = Footprint.from_config(model.config)
    assert measured.checkpoint_bytes == formula.checkpoint_bytes
    assert measured.kv_bytes_per_token == formula.kv_bytes_per_token


@pytest.mark.parametrize("family", families.FORMULA_FAMILIES)
def test_a_saved_configuration_gives_what_the_object_gives(family):
    config = families.tiny_config(family)
    assert Footprint.from_config(config.to_dict(), dtype="bfloat16") == Footprint.from_config(
        config, dtype="bfloat16"
    )


def test_only_models_with_nothing_but_full_attention_are_stateless():
    stateless = {
        family
        for family in families.FORMULA_FAMILIES
        if Footprint.from_config(families.tiny_config(family), dtype="bfloat16").is_stateless
    }
    assert stateless == {"qwen3"}
