"""The shape of the model, and where its weights start.

Three gated-delta layers and one of full attention, the ratio of Qwen3.5, with the attention second: the short
convolution before it tells each position which tokens it follows, so that one attention layer finds where the
text went on. One checkpoint weighs as much as about 860 tokens of KV (800 to 6,700 in the wild).
"""

import math

import torch
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

__all__ = ["new_model"]

_CONTEXT_TOKENS = 32_768
# As the authors of the gated delta rule start it: a step between these, so that some heads remember for a
# thousand tokens from the beginning. The library's own start, meant to be overwritten, forgets within ten.
_LEAST_STEP, _MOST_STEP = 0.001, 0.1


def new_model(*, vocab_size: int, end_token: int, seed: int) -> Qwen3_5ForCausalLM:
    """Return an untrained model. Global random state is kept."""
    config = Qwen3_5TextConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=384,
        layer_types=["linear_attention", "full_attention", "linear_attention", "linear_attention"],
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=64,
        linear_value_head_dim=64,
        linear_conv_kernel_dim=8,
        max_position_embeddings=_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_token,
        pad_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3_5ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith("dt_bias"):
                low, high = math.log(_LEAST_STEP), math.log(_MOST_STEP)
                step = torch.exp(torch.empty_like(parameter).uniform_(low, high))
                parameter.data.copy_(step + torch.log(-torch.expm1(-step)))
    return model
