"""Models of a middle size, with random weights: large enough that matrices are paid for, and not calls."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

__all__ = ["MID_FAMILIES", "mid_model"]

_COMMON = {
    "vocab_size": 8_192,
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_ATTENTION = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 1_536}
_THREE_IN_FOUR = {"layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 2}
_GATED_DELTA_NET = {
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
}
_MIXTURE = {
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
}

# Family -> the name of its text model, and what makes it what it is.
_OPTIONS = {
    "qwen3_5": ("qwen3_5_text", _ATTENTION | _THREE_IN_FOUR | _GATED_DELTA_NET),
    "mamba2": ("mamba2", {"num_heads": 16, "head_dim": 64, "state_size": 64, "n_groups": 2, "expand": 2}),
    "falcon_h1": (
        "falcon_h1",
        _ATTENTION
        | {"mamba_d_ssm": 1_024, "mamba_n_heads": 16, "mamba_d_head": 64, "mamba_d_state": 64}
        | {"mamba_n_groups": 2, "mamba_chunk_size": 64},
    ),
    "lfm2": (
        "lfm2",
        _ATTENTION
        | {"layer_types": ["conv", "conv", "full_attention", "conv"] * 2, "block_auto_adjust_ff_dim": False},
    ),
    "qwen3": ("qwen3", _ATTENTION),
    "gemma3": (
        "gemma3_text",
        _ATTENTION
        | {"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 4}
        | {"query_pre_attn_scalar": 64},
    ),
    "qwen3_5_moe": ("qwen3_5_moe_text", _ATTENTION | _THREE_IN_FOUR | _GATED_DELTA_NET | _MIXTURE),
}

MID_FAMILIES = tuple(_OPTIONS)
"""Families with a model of this size."""


def mid_model(family: str, dtype: torch.dtype) -> PreTrainedModel:
    """Return the model of ``family``, the same every time. Global random state is kept."""
    model_type, options = _OPTIONS[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **_COMMON, **options)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
