"""Prices of states in few bits, where only prices are compared."""

import pytest
from benchmarks.lossy.recorded import PRICES

from milepost.footprint import Footprint


def test_a_layer_is_priced_as_the_model_that_it_is_of() -> None:
    footprint = Footprint.from_config(
        {
            "model_type": "qwen3_5_text",
            "hidden_size": 1_024,
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_conv_kernel_dim": 4,
            "intermediate_size": 3_584,
            "vocab_size": 248_320,
            "dtype": "bfloat16",
        }
    )
    recurrent = 3 * 16 * 128 * 128
    convolution = footprint.checkpoint_bytes - 4 * recurrent
    scales = 3 * 16 * 128 * 4
    for name, bits in (("int8", 8), ("6 bit", 6)):
        kept = (recurrent * bits // 8 + scales + convolution) / footprint.checkpoint_bytes
        assert PRICES[name] / PRICES["exact"] == pytest.approx(kept)
    assert PRICES["replay"] == 0
