"""A configuration that leaves out what its family has a default for costs what the model costs."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING

from families import FORMULA_FAMILIES, tiny_config
from milepost.cli.traffic import config_of
from milepost.engines.transformers.completed_config import completed_config
from milepost.engines.transformers.describe import describe_footprint
from milepost.engines.transformers.loading import load_config
from milepost.errors import ModelLoadError
from milepost.footprint import Footprint


def write(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("family", FORMULA_FAMILIES)
def test_each_number_left_out_is_the_one_that_transformers_takes(tmp_path, family):
    whole = tiny_config(family).to_dict() | {"dtype": "float32"}
    wrong, compared = [], 0
    for name in [name for name, value in whole.items() if isinstance(value, int | float)]:
        config = {key: value for key, value in whole.items() if key != name}
        try:
            filled = CONFIG_MAPPING[whole["model_type"]].from_dict(config)
        except StrictDataclassError:  # without it, the rest contradicts the default
            continue
        compared += 1
        found = Footprint.from_config(completed_config(write(tmp_path, config)), dtype="float32")
        if found != Footprint.from_config(filled, dtype="float32"):
            wrong.append(name)
    assert wrong == []
    assert compared > 5


def test_a_configuration_that_contradicts_itself_is_an_error_of_ours(tmp_path):
    config = tiny_config("falcon_h1").to_dict()
    del config["mamba_d_ssm"]
    with pytest.raises(ModelLoadError, match="cannot open the configuration"):
        load_config(write(tmp_path, config))


def test_mamba2_needs_no_kernel_and_no_chunk(tmp_path):
    config = {
        "model_type": "mamba2",
        "dtype": "bfloat16",
        "hidden_size": 2560,
        "num_heads": 80,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 1,
        "num_hidden_layers": 64,
        "vocab_size": 50288,
    }
    path = write(tmp_path, config)
    with pytest.raises(ModelLoadError, match="conv_kernel"):
        Footprint.from_config(path)
    expected = Footprint.from_config(config | {"conv_kernel": 4, "chunk_size": 256})
    assert Footprint.from_config(config_of(path)) == expected
    assert describe_footprint(path, dtype=None, num_tokens=64, with_seconds=False)["checkpoint_bytes"] == (
        expected.checkpoint_bytes
    )


@pytest.mark.parametrize("config", [{"model_type": "no_such_family"}, {"hidden_size": 8}, {}])
def test_what_nobody_can_complete_is_refused_as_it_was(tmp_path, config):
    path = write(tmp_path, config)
    assert completed_config(path) == path
