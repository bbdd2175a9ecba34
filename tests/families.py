"""Tiny random models, one per family: the table that every test over "all families" walks.

A tiny model is honest about its family (same code path, same mix of layer kinds) and small enough to run
hundreds of times on a CPU. Two rules make it useful as evidence:

* *It can fail.* Some default initialisations all but silence the recurrence, and then a lost state would go
  unnoticed. So every parameter is drawn anew at a scale where zeroing a restored state moves the logits by
  far more than rounding does (``tests/footprint/test_families.py`` measures it).
* *It replays.* The weights depend on ``seed`` alone, and the global random state is left as it was.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

__all__ = [
    "ALL_FAMILIES",
    "BROKEN_UPSTREAM_FAMILIES",
    "CONTROL_FAMILIES",
    "RECURRENT_FAMILIES",
    "tiny_config",
    "tiny_model",
    "tiny_prompt",
]

VOCABULARY_SIZE = 256
CHUNK_SIZE = 64
SLIDING_WINDOW = 96

_COMMON = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GATED_DELTA_NET = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}
_MAMBA2_BLOCK = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 32,
    "mamba_n_groups": 2,
    "mamba_expand": 2,
    "mamba_chunk_size": CHUNK_SIZE,
}
_MAMBA1 = {"state_size": 8, "expand": 2, "num_hidden_layers": 4, "residual_in_fp32": False}
_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_FOUR_LAYERS = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
_MIXED_WINDOWS = {
    "num_hidden_layers": 4,
    "sliding_window": SLIDING_WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}

_OPTIONS: dict[str, dict[str, Any]] = {
    "qwen3_next": _FOUR_LAYERS
    | _ATTENTION
    | _GATED_DELTA_NET
    | _MOE
    | {"head_dim": 32, "intermediate_size": 96, "shared_expert_intermediate_size": 40},
    "qwen3_5": _FOUR_LAYERS | _ATTENTION | _GATED_DELTA_NET | {"head_dim": 32, "intermediate_size": 96},
    "qwen3_5_moe": _FOUR_LAYERS
    | _ATTENTION
    | _GATED_DELTA_NET
    | _MOE
    | {"head_dim": 32, "shared_expert_intermediate_size": 40},
    "olmo_hybrid": _FOUR_LAYERS | _ATTENTION | _GATED_DELTA_NET | {"intermediate_size": 96},
    "kimi_linear": _FOUR_LAYERS
    | {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 96,
        "moe_intermediate_size": 48,
        "kv_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "linear_head_dim": 16,
        "linear_num_heads": 4,
    },
    "mamba2": {
        "num_hidden_layers": 4,
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 32,
        "n_groups": 2,
        "expand": 2,
        "chunk_size": CHUNK_SIZE,
        "residual_in_fp32": False,
    },
    "falcon_h1": _ATTENTION
    | _MAMBA2_BLOCK
    | {"num_hidden_layers": 4, "mamba_d_ssm": 128, "head_dim": 16, "intermediate_size": 96},
    "granitemoehybrid": _FOUR_LAYERS
    | _ATTENTION
    | _MAMBA2_BLOCK
    | {
        "intermediate_size": 48,
        "shared_intermediate_size": 40,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "attention_multiplier": 0.25,
    },
    "nemotron_h": _ATTENTION
    | {
        "layers_block_type": ["linear_attention", "moe", "linear_attention", "full_attention", "mlp"],
        "head_dim": 16,
        "intermediate_size": 96,
        "ssm_state_size": 32,
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "chunk_size": CHUNK_SIZE,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "moe_shared_expert_intermediate_size": 40,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_attention_heads": 4,
        "mamba_d_state": 32,
        "n_mamba_heads": 8,
        "mamba_ngroups": 2,
        "chunk_size": CHUNK_SIZE,
        "intermediate_size": 96,
        "num_mem_blocks": 1,
        "adapter_rank": 8,
        "use_mem_rope": True,
    },
    "lfm2": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "intermediate_size": 96,
        "block_auto_adjust_ff_dim": False,
    },
    "lfm2_moe": _ATTENTION
    | _MOE
    | {
        "num_hidden_layers": 4,
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "intermediate_size": 96,
        "num_dense_layers": 1,
    },
    # Half the hidden size must be a multiple of 64: the cache rounds the key size up, the layers do not.
    "xlstm": {"num_hidden_layers": 4, "hidden_size": 128, "num_heads": 4, "chunk_size": CHUNK_SIZE},
    "rwkv": {"num_hidden_layers": 4, "attention_hidden_size": 64, "intermediate_size": 96},
    "qwen3": _ATTENTION | {"num_hidden_layers": 4, "head_dim": 16, "intermediate_size": 96},
    "gpt_oss": _ATTENTION
    | _MIXED_WINDOWS
    | {"head_dim": 16, "intermediate_size": 48, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma3": _ATTENTION
    | _MIXED_WINDOWS
    | {"head_dim": 16, "intermediate_size": 96, "query_pre_attn_scalar": 16},
    "mamba": _MAMBA1,
    "falcon_mamba": _MAMBA1,
    "jamba": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "intermediate_size": 48,
        "attn_layer_period": 4,
        "attn_layer_offset": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mamba_d_state": 8,
    },
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "attention_head_dim": 32,
        "intermediate_size": 96,
        "n_mamba_heads": 2,
        "mamba_d_state": 8,
    },
    "recurrent_gemma": {
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 96,
        "lru_width": 64,
        "attention_window_size": SLIDING_WINDOW,
    },
    "minimax": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
        "head_dim": 16,
        "intermediate_size": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "block_size": CHUNK_SIZE,
    },
    "bamba": _ATTENTION
    | _MAMBA2_BLOCK
    | {"num_hidden_layers": 4, "attn_layer_indices": [2], "intermediate_size": 96},
}

# Names of the text model where the family's own name belongs to a multimodal wrapper.
_MODEL_TYPES = {
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "gemma3": "gemma3_text",
}

CONTROL_FAMILIES: tuple[str, ...] = ("qwen3", "gpt_oss", "gemma3")
"""Plain transformers: no recurrent state, two of them with sliding windows."""

BROKEN_UPSTREAM_FAMILIES: tuple[str, ...] = (
    "mamba",
    "falcon_mamba",
    "jamba",
    "zamba",
    "recurrent_gemma",
    "minimax",
    "bamba",
)
"""Families whose own code continues wrongly from a restored state and needs a fix first."""

RECURRENT_FAMILIES: tuple[str, ...] = tuple(
    family for family in _OPTIONS if family not in CONTROL_FAMILIES + BROKEN_UPSTREAM_FAMILIES
)
"""Families that resume correctly as they are."""

ALL_FAMILIES: tuple[str, ...] = RECURRENT_FAMILIES + CONTROL_FAMILIES + BROKEN_UPSTREAM_FAMILIES


def tiny_config(family: str) -> PreTrainedConfig:
    """Return a fresh configuration of ``family``: 256 tokens, hidden size 64, four layers of every kind."""
    options = copy.deepcopy(_COMMON | _OPTIONS[family])
    return AutoConfig.for_model(_MODEL_TYPES.get(family, family), **options)


def tiny_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    """Return ``family``'s tiny model on the CPU, in evaluation mode, its weights a function of ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.float32)
        _draw_parameters(model)
    # Drawn in fp32 whatever the type, so that the types share weights; the configuration must not say so.
    model.config.dtype = dtype
    return model.to(dtype).eval()


def tiny_prompt(num_tokens: int, seed: int = 0) -> torch.Tensor:
    """Return ``int64[1, num_tokens]`` random token ids, none of them a special token."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY_SIZE, (1, num_tokens), generator=generator)


def _draw_parameters(model: PreTrainedModel) -> None:
    """Draw every parameter anew, by name where its role fixes a scale, else by fan-in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            last = name.rsplit(".", 1)[-1]
            draw = _DRAWS_BY_NAME.get(last)
            if draw is not None:
                parameter.copy_(draw(parameter))
            elif "embed" in name or ("conv" in name and last == "weight"):
                parameter.normal_(std=0.5)
            elif parameter.ndim >= 2:
                parameter.normal_(std=1.0 / math.sqrt(parameter.shape[-1]))
            else:
                # Norms and biases keep their centre (some norms scale by weight, some by 1 + weight).
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _normal(mean: float, std: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda parameter: mean + std * torch.randn_like(parameter)


# Decays that remember for tens of tokens, gates neither shut nor saturated.
_DRAWS_BY_NAME: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "A_log": _normal(-1.5, 0.5),
    "dt_bias": _normal(-1.0, 0.5),
    "D": _normal(0.0, 0.5),
    "time_decay": _normal(-2.0, 0.5),
    "time_first": _normal(0.0, 0.5),
    "time_mix_key": torch.rand_like,
    "time_mix_value": torch.rand_like,
    "time_mix_receptance": torch.rand_like,
    "recurrent_param": _normal(-3.0, 0.5),
    "sinks": _normal(0.0, 0.5),
}
