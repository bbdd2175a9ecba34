"""Opening models from disk: whole ones open, damaged ones say what is wrong with them."""

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from families import tiny_config, tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.transformers.loading import load_model
from milepost.errors import ConfigurationError, ModelLoadError

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny_model("qwen3_5").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, **{f"w{number}": number for number in range(1, 40)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)


def change_config(folder: Path, **entries) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_a_saved_model_opens_and_answers_as_the_one_in_memory(folder):
    prompt = tiny_prompt(150)[0].numpy()
    opened, memory = (
        Engine.open(m, capacity="1MB", segment_tokens=64) for m in (folder, tiny_model("qwen3_5"))
    )
    answers = [engine.generate(prompt, max_new_tokens=4) for engine in (opened, memory)]
    assert answers[0].tokens == answers[1].tokens
    assert opened.tokenizer is None, "none is made up where there is none"


def test_a_tokenizer_beside_the_model_is_used_unless_another_is_given(folder):
    write_tokenizer(folder)
    assert load_model(folder).tokenizer.encode("w7 w9") == [7, 9]
    mine = object()
    assert load_model(folder, tokenizer=mine).tokenizer is mine


@pytest.mark.parametrize(("option", "value"), [("dtype", "float32"), ("device", "cpu"), ("revision", "main")])
def test_an_option_that_cannot_apply_to_a_model_in_memory_is_refused(option, value):
    with pytest.raises(ConfigurationError, match=f"{option}='{value}' cannot apply"):
        Engine.open(tiny_model("qwen3_5"), **{option: value})


def test_a_folder_has_no_revisions(folder):
    with pytest.raises(ConfigurationError, match=r"revision='main', but .* is a folder"):
        load_model(folder, revision="main")


def test_a_model_in_memory_is_put_in_evaluation_mode():
    assert not load_model(tiny_model("qwen3_5").train()).model.training


def test_the_element_type_can_be_chosen(folder):
    assert load_model(folder).model.dtype is torch.float32
    assert load_model(str(folder), dtype="bfloat16").model.dtype is torch.bfloat16
    with pytest.raises(ConfigurationError, match="give one of auto, float32"):
        load_model(folder, dtype="int8")


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_cannot_be_used_is_named(folder, device):
    with pytest.raises(ConfigurationError, match=f"device='{device}' cannot be used"):
        load_model(folder, device=device)


def test_shards_open_and_a_missing_one_is_named(tmp_path):
    tiny_model("qwen3_5").save_pretrained(tmp_path, max_shard_size="200KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    load_model(tmp_path)
    shards[1].unlink()
    with pytest.raises(ModelLoadError, match=shards[1].name):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("keep", "says"),
    [(-100, "file not fully covered"), (100, "invalid header length"), (0, "header too small")],
)
def test_truncated_weights_are_named_with_what_to_do(folder, keep, says):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelLoadError, match=rf"model.safetensors .*{says}.*; copy it again"):
        load_model(folder)


@pytest.mark.parametrize("header", [b"12", b"[]", b"{]", b'{"a": {}}', b'{"a": 5}', b"\xff\xfe"])
def test_weights_with_a_broken_header_are_refused(folder, header):
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelLoadError, match="not a whole safetensors file"):
        load_model(folder)


def test_weights_that_are_missing_are_never_made_up(folder):
    change_weights(folder, lambda weights: weights.pop("model.layers.0.input_layernorm.weight"))
    with pytest.raises(ModelLoadError, match=r"lacks 1 of the weights .*layers.0.input_layernorm"):
        load_model(folder)


def test_a_model_without_a_head_is_refused(tmp_path):
    AutoModel.from_config(tiny_config("qwen3_5")).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="with its language-model head"):
        load_model(tmp_path)


def test_weights_of_another_shape_are_refused(folder):
    change_config(folder, intermediate_size=128)
    with pytest.raises(ModelLoadError, match=r"have another shape than config.json says"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[1]", "cannot open model"),
        ("{}", "cannot open model"),
    ],
)
def test_a_broken_configuration_is_refused(folder, text, says):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelLoadError, match=says):
        load_model(folder)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"model_type": "abacus"}, "model type `abacus`"),
        ({"hidden_size": "large"}, "'hidden_size' expected int"),
        ({"num_attention_heads": 0}, "division"),
        ({"layer_types": ["dance"] * 4}, "layer_types"),
    ],
)
def test_a_configuration_with_an_impossible_value_is_refused_with_the_reason(folder, entries, says):
    change_config(folder, **entries)
    with pytest.raises(ModelLoadError, match=says):
        load_model(folder)


@pytest.mark.parametrize("text", ["{", '{"model": 5}', ""])
def test_a_broken_tokenizer_is_an_error_and_does_not_pass_for_none(folder, text):
    write_tokenizer(folder)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ModelLoadError, match=r"the tokenizer in .* cannot be read"):
        load_model(folder)


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(ModelLoadError, match=r"has no config.json; give the folder"):
        load_model(tmp_path)


@pytest.mark.parametrize("path", ["/no/such/folder", "./no-such-folder", "../no/such"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(path):
    with pytest.raises(ModelLoadError, match="there is no folder"):
        load_model(path)


def test_weights_are_needed_and_pickles_are_not_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"whatever")
    with pytest.raises(ModelLoadError, match=r"model\.safetensors"):
        load_model(folder)


def test_an_encoder_decoder_is_refused(tmp_path):
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="T5Config"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["milepost/no-such-model", "no such model"])
def test_a_hub_id_without_a_network_fails_fast_and_clearly(name):
    started = time.perf_counter()
    with pytest.raises(ModelLoadError, match=f"there is no folder.*'{name}'"):
        load_model(name)
    assert time.perf_counter() - started < 10
