"""One layer group of Qwen3.5-0.8B (three gated-delta-net layers, one of attention), random weights."""

import torch
from transformers import PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig

__all__ = ["build_layer_group"]


def build_layer_group(dtype: torch.dtype) -> PreTrainedModel:
    """Return a model of hidden size 1024 with the published shapes, and a small vocabulary, since logits are
    needed once a prompt.
    """
    config = Qwen3_5TextConfig(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=3584,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=256,
        linear_num_key_heads=16,
        linear_num_value_heads=16,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        dtype=dtype,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen3_5ForCausalLM(config).to(dtype).eval()
