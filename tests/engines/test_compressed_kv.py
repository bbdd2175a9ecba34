"""Transformers' quantised caches are refused, and the reasons for it hold: they can be read here."""

import pytest
import torch
from tiny_engine import open_engine
from transformers import Qwen3NextConfig
from transformers.cache_utils import Fp8QuantizedLayer, QuantizedCache, QuantizedLayer

from families import tiny_model
from milepost.errors import ConfigurationError


class EightBits(QuantizedLayer):
    """Stands for the two backends, which are packages of their own: a scale for a channel."""

    def _quantize(self, tensor, axis):
        scale = tensor.abs().amax(dim=-2, keepdim=True) / 127
        return (tensor / scale).round(), scale

    def _dequantize(self, quantised):
        whole, scale = quantised
        return whole * scale


@pytest.fixture
def values():
    growing = torch.linspace(1, 3, 512)[None, None, :, None]
    return torch.randn(1, 2, 512, 32, generator=torch.Generator().manual_seed(0)) * growing


@pytest.mark.parametrize("name", ["key_type", "value_type"])
def test_a_format_of_kv_is_refused_where_llama_cpp_does_not_run(name):
    with pytest.raises(ConfigurationError, match=f"{name}='q8_0' is for a GGUF file.*leave it out"):
        open_engine(tiny_model("qwen3_next"), **{name: "q8_0"})


def test_a_quantised_cache_is_refused_with_the_reason_and_the_way_out():
    with pytest.raises(ConfigurationError, match=r"'quantized'.*by what comes after them.*override it"):
        open_engine(tiny_model("qwen3_next"), generation_config={"cache_implementation": "quantized"})
    engine = open_engine(tiny_model("qwen3_next"), generation_config={"cache_implementation": None})
    assert len(engine.generate(list(range(5, 40)), max_new_tokens=1).tokens) == 1


def test_later_tokens_change_what_is_kept_of_earlier_ones(values):
    layer = EightBits(residual_length=128)
    layer.update(values[:, :, :256], values[:, :, :256])
    before = layer._dequantize(layer._quantized_values)
    layer.update(values[:, :, 256:], values[:, :, 256:])
    after = layer._dequantize(layer._quantized_values)[:, :, :256]

    assert (before != after).float().mean() > 0.9


def test_fp8_hangs_on_how_much_came_in_the_first_call(values):
    def kept_after(*cuts):
        layer = Fp8QuantizedLayer()
        for piece in values[:, :, :256].tensor_split(cuts, dim=-2):
            layer.update(piece, piece)
        return layer._quantized_values[0].view(torch.uint8)

    assert torch.equal(kept_after(64, 128), kept_after(64))
    assert (kept_after(64) != kept_after()).float().mean() > 0.9


@pytest.mark.parametrize("backend", ["quanto", "hqq", "fp8"])
def test_no_hybrid_model_can_have_one(backend):
    with pytest.raises(ValueError, match="only full attention layers"):
        QuantizedCache(backend, Qwen3NextConfig(num_hidden_layers=4))
