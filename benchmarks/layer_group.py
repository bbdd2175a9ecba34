"""One layer group of Qwen3.5-0.8B (three gated-delta-net layers, one of attention), random weights."""

import torch
from transformers import PreTrainedModel, Qwen3_5ForCausalLM, Qwen3_5TextConfig

__all__ = ["build_layer_group"]


def build_layer_group(dtype: torch.dtype, *, is_full: bool = True) -> PreTrainedModel:
    """Return a model with a small vocabulary, since logits are needed once a prompt.

    Args:
        dtype: Of its weights.
        is_full: The published shapes; else half as wide, with states of a fourth. A token of KV is as large
            in both, so a state is then worth a fourth of the tokens.
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
