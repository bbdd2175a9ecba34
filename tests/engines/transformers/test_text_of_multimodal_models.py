"""Models that also take images are opened for text: by the class there is, with all their weights, and a
prompt that stands for anything but text is refused."""

import json

import pytest
import torch
from resuming import prompt
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from families import MULTIMODAL_FAMILIES, tiny_model
from family_options import COMMON, OPTIONS
from milepost.engines.engine import Engine
from milepost.errors import InvalidRequestError, ModelLoadError
from milepost.footprint import Footprint

torch.set_num_threads(1)
multimodal_families = pytest.mark.parametrize("family", MULTIMODAL_FAMILIES)


def opened(model):
    return Engine.open(model, capacity="64MiB", segment_tokens=64, policy="dense:64")


def answer(engine, tokens):
    return engine.generate(tokens.numpy(), max_new_tokens=6, ignore_end_token=True)


def by_its_own_generate(model, tokens):
    generated = model.generate(
        input_ids=tokens[None],
        attention_mask=torch.ones_like(tokens[None]),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=None,
    )
    return tuple(generated[0, tokens.numel() :].tolist())


def text_prompt(num_tokens):
    """Tokens below those that stand for images and the like."""
    return prompt(num_tokens) % 240 + 3


@multimodal_families
def test_a_saved_model_is_opened_for_text_and_answers_as_generate_does(family, tmp_path):
    tiny_model(family).save_pretrained(tmp_path)
    tokens = text_prompt(150)

    engine = opened(tmp_path)

    assert answer(engine, tokens).tokens == by_its_own_generate(tiny_model(family), tokens)
    assert answer(engine, tokens).report.reused == 128


@multimodal_families
def test_a_missing_weight_is_named_here_too(family, tmp_path):
    tiny_model(family).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    missing = next(name for name in weights if "layers.0" in name and "norm" in name)
    del weights[missing]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelLoadError, match="lacks 1 of the weights"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("family", "token", "kind"), [("glm5_next", 250, "image"), ("nemotron_h_omni", 252, "audio")]
)
def test_a_token_that_stands_for_an_image_is_refused_and_the_next_prompt_is_served(family, token, kind):
    engine = opened(tiny_model(family))
    tokens = text_prompt(100)
    with_media = tokens.clone()
    with_media[7] = token

    with pytest.raises(InvalidRequestError, match=f"token {token} at position 7 stands for {kind} input"):
        answer(engine, with_media)
    assert len(answer(engine, tokens).tokens) == 6


def test_a_checkpoint_of_the_class_for_images_opens_as_the_language_model_where_there_is_one(tmp_path):
    """The published ones of Qwen3.5 are of this kind."""
    config = AutoConfig.for_model(
        "qwen3_5",
        text_config=COMMON | OPTIONS["qwen3_5"],
        vision_config={
            "depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64, "intermediate_size": 32,
        },
        image_token_id=250,
        video_token_id=251,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = AutoModelForImageTextToText.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        "Qwen3_5ForConditionalGeneration"
    ]
    tokens = text_prompt(150)

    engine = opened(tmp_path)

    assert type(engine.driver.model).__name__ == "Qwen3_5ForCausalLM"
    expected = by_its_own_generate(whole, tokens)
    assert answer(engine, tokens).tokens == expected
    assert answer(opened(whole), tokens).tokens == expected, "the class for images is served as it is, too"


def test_the_formula_of_the_text_model_holds_for_the_whole():
    engine = opened(tiny_model("nemotron_h_omni"))

    assert engine.footprint == Footprint.from_config(engine.driver.model.config, dtype="float32")
