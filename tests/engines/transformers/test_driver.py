"""What a driver says of a model, and which models it turns away."""

import pytest
import torch
from resuming import prompt, tiny_driver
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from families import ALL_FAMILIES, tiny_config, tiny_model
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.families import driver_for
from milepost.errors import ConfigurationError, InvalidRequestError, UnsupportedModelError

# What the kernels of a family take at a time, by the name its configuration has for it.
CHUNK_NAMES = {
    "mamba2": "chunk_size",
    "nemotron_h": "chunk_size",
    "zamba2": "chunk_size",
    "xlstm": "chunk_size",
    "falcon_h1": "mamba_chunk_size",
    "granitemoehybrid": "mamba_chunk_size",
    "bamba": "mamba_chunk_size",
    "minimax": "block_size",
}
# gpt_oss stretches its positions, which end nowhere.
UNLIMITED = {"mamba", "mamba2", "falcon_mamba", "recurrent_gemma", "xlstm", "rwkv", "gpt_oss"}


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_alignment_is_a_common_multiple_of_64_and_the_chunk_size(family):
    config = tiny_config(family)
    if family not in CHUNK_NAMES:
        assert tiny_driver(family, torch.float32).alignment == 64
        return
    setattr(config, CHUNK_NAMES[family], 96)

    driver = driver_for(AutoModelForCausalLM.from_config(config).eval())

    assert driver.alignment == 192


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_driver_knows_its_context_and_vocabulary(family):
    driver = tiny_driver(family, torch.float32)

    assert (driver.context_length is None) == (family in UNLIMITED)
    assert driver.vocabulary_size == 256
    assert driver.family == tiny_config(family).model_type


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_logits_belong_to_the_caller(family):
    driver = tiny_driver(family, torch.float32)

    logits = driver.advance(driver.start(), prompt(70))

    assert logits.shape == (256,)
    assert logits.untyped_storage().nbytes() == logits.nbytes


def test_an_encoder_decoder_is_refused_by_name():
    config = T5Config(vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModelError, match=r"t5: .*decoder-only"):
        driver_for(T5ForConditionalGeneration(config).eval())


def test_a_model_that_predicts_no_next_token_is_refused_by_name():
    config = BertConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(UnsupportedModelError, match="bert: BertForMaskedLM predicts no next token"):
        driver_for(BertForMaskedLM(config).eval())


def test_a_model_without_a_cache_is_refused_by_name():
    config = OpenAIGPTConfig(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    with pytest.raises(
        UnsupportedModelError, match="openai-gpt: its forward call takes none of cache, past_key"
    ):
        driver_for(OpenAIGPTLMHeadModel(config).eval())


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ConfigurationError, match=r"model\.eval\(\)"):
        TransformersDriver(tiny_model("qwen3").train())


@pytest.mark.parametrize("shape", [(0,), (1, 4)])
def test_tokens_of_another_shape_are_refused_and_the_cache_is_unchanged(shape):
    driver = tiny_driver("qwen3_next", torch.float32)
    live = driver.start()

    with pytest.raises(InvalidRequestError, match="one dimension"):
        driver.advance(live, torch.zeros(shape, dtype=torch.long))

    assert live.position == 0
