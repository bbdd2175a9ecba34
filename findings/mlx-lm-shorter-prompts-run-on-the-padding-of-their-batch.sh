#!/usr/bin/env bash
# mlx-lm 0.32.2 with mlx 0.32.4 and mlx-cpu 0.32.4 (Linux, CPU). Seen in November 2026.
#
# A prompt of 20 tokens is answered by a `BatchGenerator` alone, beside another of 20, and beside one of 60, which pads
# it to 60. Qwen3, LFM2 and Mamba-2 answer the same in all three: they are told which places are padding.
# Mamba, RWKV-7, Jamba, RecurrentGemma and Bailing's linear attention answer another text beside the longer one: their
# states go on over the padding. mlx-lm's server puts requests of all eight in batches, since it asks only whether a
# cache can be merged, and the class that holds their states can.
#
# Why it surprises: beside an equal the same model is right, so a test of batches with prompts of one length passes;
# and in a server an answer hangs on how long the prompt of somebody else was.
#
# Seen (largest difference of a log-probability of the first token, beside an equal and beside a longer one):
#   qwen3: 0.0 0.0
#   lfm2: 0.0 0.0
#   mamba2: 0.0 0.0
#   mamba: 0.0 6.8
#   rwkv7: 0.0 0.2
#   jamba: 0.0 5.5
#   recurrent_gemma: 0.0 9.0
#   bailing_moe_linear: 0.0 6.0
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx-lm==0.32.2 mlx==0.32.4 mlx-cpu==0.32.4
"$work/venv/bin/python" - <<'PYTHON'
import importlib
import sys

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache

SIZES = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128}
HEADS = {"num_attention_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 4096}
FAMILIES = {
    "qwen3": SIZES | HEADS | {
        "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 16, "rope_theta": 1e4,
        "tie_word_embeddings": True,
    },
    "lfm2": {
        "vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "norm_eps": 1e-6, "conv_bias": False,
        "conv_L_cache": 3, "block_dim": 64, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False, "block_ff_dim": 128, "layer_types": ["conv", "full_attention", "conv"],
    },
    "mamba2": SIZES | {
        "num_heads": 8, "head_dim": 16, "state_size": 32, "num_hidden_layers": 2, "layer_norm_epsilon": 1e-5,
        "conv_kernel": 4, "n_groups": 1, "use_bias": False, "use_conv_bias": True, "tie_word_embeddings": False,
        "time_step_limit": (0.0, 1e9), "time_step_rank": "auto",
    },
    "mamba": SIZES | {
        "state_size": 16, "num_hidden_layers": 2, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True,
        "time_step_rank": 8,
    },
    "rwkv7": SIZES | {
        "norm_eps": 1e-5, "head_dim": 32, "num_hidden_layers": 2, "a_low_rank_dim": 16, "v_low_rank_dim": 16,
        "gate_low_rank_dim": 16, "decay_low_rank_dim": 16,
    },
    "jamba": SIZES | HEADS | {
        "num_hidden_layers": 4, "num_key_value_heads": 2, "attn_layer_offset": 1, "attn_layer_period": 2,
        "expert_layer_offset": 1, "expert_layer_period": 2, "mamba_d_conv": 4, "mamba_d_state": 16,
        "mamba_expand": 2, "num_experts": 2, "num_experts_per_tok": 1,
    },
    "recurrent_gemma": SIZES | {
        "attention_bias": False, "conv1d_width": 4, "logits_soft_cap": 30.0, "num_attention_heads": 4,
        "num_hidden_layers": 3, "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        "attention_window_size": 128, "block_types": ["recurrent", "recurrent", "attention"],
    },
    "bailing_moe_linear": SIZES | HEADS | {
        "moe_intermediate_size": 64, "num_experts": 4, "num_shared_experts": 1, "norm_topk_prob": True,
        "num_experts_per_tok": 2, "num_hidden_layers": 4, "num_key_value_heads": 4, "rope_theta": 1e4,
        "first_k_dense_replace": 1, "layer_group_size": 2, "group_norm_size": 1, "n_group": 1, "topk_group": 1,
    },
}
PROMPT, EQUAL, LONGER = (
    [(a * i * i + b * i + 1) % 256 for i in range(count)] for a, b, count in ((7, 3, 20), (9, 5, 20), (5, 1, 60))
)


def model_of(family):
    module = importlib.import_module(f"mlx_lm.models.{family}")
    mx.random.seed(0)
    model = module.Model(module.ModelArgs(model_type=family, **FAMILIES[family]))
    drawn_from = 1 if family == "rwkv7" else 2
    model.update(tree_map(lambda p: mx.random.normal(p.shape) * 0.2 if p.ndim >= drawn_from else p, model.parameters()))
    mx.eval(model.parameters())
    assert all(hasattr(layer, "merge") for layer in make_prompt_cache(model)), "the server would not put it in a batch"
    return model


def first_of(model, prompts):
    """Return the log-probabilities of the first token after the first of the prompts."""
    generator = BatchGenerator(model, max_tokens=2)
    first, *_ = generator.insert(prompts)
    found = None
    while responses := generator.next_generated():
        for response in responses:
            if response.uid == first and found is None:
                found = response.logprobs
    generator.close()
    return found


def differences(model):
    alone = first_of(model, [PROMPT])
    return [mx.abs(first_of(model, [PROMPT, other]) - alone).max().item() for other in (EQUAL, LONGER)]


seen = {}
for family in FAMILIES:
    seen[family] = differences(model_of(family))
    print(f"{family}: {seen[family][0]:.1f} {seen[family][1]:.1f}")
masked = ("qwen3", "lfm2", "mamba2")
as_seen = all(equals < 1e-3 and (longer < 1e-3) == (family in masked) for family, (equals, longer) in seen.items())
sys.exit(not as_seen)
PYTHON
