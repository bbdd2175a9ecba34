"""Configurations as they are published: files, wrappers, old names, and entries left out."""

import json
from types import SimpleNamespace

import pytest
from transformers import AutoConfig

import milepost.footprint
from milepost.errors import ConfigurationError, ModelLoadError, UnsupportedModelError
from milepost.footprint import Footprint, known_model_types

QWEN3 = {
    "model_type": "qwen3",
    "torch_dtype": "bfloat16",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3072,
}
QWEN3_5 = {
    "model_type": "qwen3_5_text",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 3584,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
}
KIMI_LINEAR = {
    "model_type": "kimi_linear",
    "dtype": "bfloat16",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "moe_intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "linear_attn_config": {
        "full_attn_layers": [4, 8],
        "kda_layers": [1, 2, 3, 5, 6, 7],
        "head_dim": 128,
        "num_heads": 32,
        "short_conv_kernel_size": 4,
    },
}
NEMOTRON_H = {
    "model_type": "nemotron_h",
    "torch_dtype": "bfloat16",
    "hidden_size": 2688,
    "hybrid_override_pattern": "MEM*E-",
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "intermediate_size": 1856,
    "ssm_state_size": 128,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "conv_kernel": 4,
    "chunk_size": 128,
    "n_routed_experts": 128,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "moe_latent_size": 1024,
}
GRANITE = {
    "model_type": "granitemoehybrid",
    "torch_dtype": "bfloat16",
    "hidden_size": 1536,
    "intermediate_size": 512,
    "shared_intermediate_size": 1024,
    "num_hidden_layers": 4,
    "layer_types": ["mamba", "mamba", "attention", "mamba"],
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "mamba_n_heads": 48,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
ZAMBA2 = {
    "model_type": "zamba2",
    "torch_dtype": "bfloat16",
    "hidden_size": 2048,
    "num_hidden_layers": 3,
    "layers_block_type": ["mamba", "hybrid", "mamba"],
    "num_attention_heads": 32,
    "n_mamba_heads": 64,
    "use_shared_attention_adapter": True,
}
LFM2 = {
    "model_type": "lfm2",
    "torch_dtype": "bfloat16",
    "hidden_size": 1024,
    "block_ff_dim": 6656,
    "block_multiple_of": 256,
    "block_auto_adjust_ff_dim": True,
    "full_attn_idxs": [2, 5],
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
MISTRAL = QWEN3 | {"model_type": "mistral", "sliding_window": 4096, "head_dim": 64}
QWEN3_MOE = QWEN3 | {
    "model_type": "qwen3_moe",
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}
PUBLISHED = [KIMI_LINEAR, NEMOTRON_H, GRANITE, ZAMBA2, LFM2, QWEN3, QWEN3_MOE, QWEN3_5 | {"dtype": "float16"}]
PUBLISHED += [MISTRAL, QWEN3 | {"model_type": "llama"}, QWEN3 | {"model_type": "qwen2"}]


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published["model_type"])
def test_a_published_configuration_reads_as_transformers_reads_it(published):
    options = {key: value for key, value in published.items() if key != "model_type"}
    config = AutoConfig.for_model(published["model_type"], **json.loads(json.dumps(options)))
    assert Footprint.from_config(published) == Footprint.from_config(config)


@pytest.mark.parametrize("model_type", known_model_types())
def test_every_known_family_reads_transformers_defaults(model_type):
    footprint = Footprint.from_config(AutoConfig.for_model(model_type), dtype="bfloat16")
    assert footprint.checkpoint_bytes + footprint.kv_bytes_per_token > 0
    assert footprint.cost.unit == "flops"
    assert footprint.cost.linear_per_token > 0


def test_published_sizes_are_met():
    layer_group = Footprint.from_config(QWEN3_5, dtype="bfloat16")
    assert (layer_group.checkpoint_bytes, layer_group.kv_bytes_per_token) == (3_293_184, 2_048)
    qwen3_next = Footprint.from_config(AutoConfig.for_model("qwen3_next"), dtype="bfloat16")
    assert (round(qwen3_next.checkpoint_bytes / 1e6, 1), qwen3_next.kv_bytes_per_token) == (77.9, 24_576)
    kimi = Footprint.from_config(AutoConfig.for_model("kimi_linear"), dtype="bfloat16")
    assert (round(kimi.checkpoint_bytes / 1e6, 1), kimi.kv_bytes_per_token) == (46.1, 6_912)
    assert (round(qwen3_next.checkpoint_kv_tokens), round(kimi.checkpoint_kv_tokens)) == (3_168, 6_670)


def test_active_weights_are_those_that_the_models_are_named_after():
    qwen3_next = Footprint.from_config(AutoConfig.for_model("qwen3_next"), dtype="bfloat16")
    # 80B-A3B: three billion active, of which the output head and embeddings are left out here.
    assert 2.9e9 < qwen3_next.cost.linear_per_token / 2 < 3.6e9


def test_a_multimodal_wrapper_is_read_through_its_text_model():
    text = Footprint.from_config(QWEN3_5, dtype="bfloat16")
    wrapper = {"model_type": "qwen3_5", "torch_dtype": "bfloat16", "text_config": QWEN3_5}
    assert Footprint.from_config(wrapper) == text
    anonymous = {key: value for key, value in QWEN3_5.items() if key != "model_type"}
    assert Footprint.from_config(wrapper | {"text_config": anonymous}) == text
    assert Footprint.from_config(SimpleNamespace(**wrapper)) == text
    assert Footprint.from_config(AutoConfig.for_model("gemma3"), dtype="bfloat16").kv_bytes_per_token > 0


def test_a_file_and_its_folder_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    expected = Footprint.from_config(QWEN3)
    assert Footprint.from_config(tmp_path) == expected
    assert Footprint.from_config(str(tmp_path / "config.json")) == expected


def test_the_given_type_comes_before_the_configured_one():
    bfloat16 = Footprint.from_config(QWEN3)
    assert Footprint.from_config(QWEN3, dtype="torch.float32").kv_bytes_per_token == 2 * (
        bfloat16.kv_bytes_per_token
    )


def test_an_unknown_family_is_refused_with_the_way_out():
    with pytest.raises(UnsupportedModelError, match=r"'resnet'.*qwen3_next.*from_measurements"):
        Footprint.from_config({"model_type": "resnet", "dtype": "bfloat16"})


def test_an_unknown_kind_of_layer_is_refused():
    with pytest.raises(
        UnsupportedModelError, match="'indexed_attention' in the configuration of qwen3_5_text"
    ):
        Footprint.from_config(QWEN3_5 | {"layer_types": ["indexed_attention"] * 4}, dtype="bfloat16")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "no model_type"),
        (None, "no model_type"),
        ({"model_type": "qwen3", "dtype": "bfloat16"}, "no num_hidden_layers"),
        (QWEN3 | {"hidden_size": "1024"}, "hidden_size='1024'"),
        (QWEN3 | {"num_attention_heads": 0}, "integer of at least 1"),
        ({key: value for key, value in ZAMBA2.items() if "block" not in key}, "no layer_types"),
    ],
)
def test_a_broken_configuration_is_refused(config, reason):
    with pytest.raises(ModelLoadError, match=reason):
        Footprint.from_config(config)


def test_a_broken_file_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match=r"nowhere.*cannot be read"):
        Footprint.from_config(tmp_path / "nowhere")
    for content, reason in [("{", "not valid JSON"), ("[]", "holds a list")]:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ModelLoadError, match=reason):
            Footprint.from_config(tmp_path)


def test_a_missing_or_strange_type_is_refused():
    with pytest.raises(ConfigurationError, match="names none; give dtype"):
        Footprint.from_config(QWEN3_5)
    with pytest.raises(ConfigurationError, match="dtype='int4'"):
        Footprint.from_config(QWEN3, dtype="int4")


def test_the_public_names_are_these():
    assert milepost.footprint.__all__ == [
        "Footprint",
        "KVWindow",
        "MeasuredBytes",
        "PrefillCost",
        "WindowedAttention",
        "calibrate",
        "fit_seconds",
        "known_model_types",
    ]
