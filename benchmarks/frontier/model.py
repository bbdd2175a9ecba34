"""A layer group of Qwen3.5-0.8B with random weights: as published, or a fourth of its state."""

import torch
from transformers import PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig

__all__ = ["build_group"]


def build_group(*, is_full: bool, dtype: torch.dtype) -> PreTrainedModel:
    """Return three gated-delta-net layers and one of attention.

    A token of KV is as large in both sizes, so a state is worth a fourth of the tokens in the small one.
    """
    hidden, linear_dim = (1024, 128) if is_full else (512, 64)
    config = Qwen3_5TextConfig(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=7 * hidden // 2,
        num_hidden_layers=4,
        num_attention_heads=hidden // 128,
        num_key_value_heads=2,
        head_dim=256,
        linear_num_key_heads=16,
        linear_num_value_heads=16,
        linear_key_head_dim=linear_dim,
        linear_value_head_dim=linear_dim,
        dtype=dtype,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen3_5ForCausalLM(config).to(dtype).eval()
