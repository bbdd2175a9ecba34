#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0 (CPU). Seen in November 2026.
#
# A hybrid's cache refuses crop(-10), and the error says what to do: "Call `activate_past_recording` before
# `crop` to be able to rollback the cache". Done as told, crop(-10) returns without an error, and
# get_seq_length() says 90 of 100 tokens. But only keys, values and convolution states went back: the
# recurrent states are those after 100 tokens still. The next token is then computed from a past that never
# was. Only `is_croppable`, which stays False, tells.
#
# Why it surprises: the advice of the error turns a refusal into a wrong answer.
#
# Seen:
#   refused first: RuntimeError
#   after crop(-10): 90 tokens by get_seq_length(), is_croppable=False
#   recurrent states moved back: False
#   next logits differ from those of a cache of 90 tokens by 0.83, where the largest is 2.56
#   attention alone (control): they differ by 0.00
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, logging

logging.set_verbosity_error()
torch.set_num_threads(1)


def tiny(layer_types):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3_5_text", vocab_size=256, hidden_size=64, num_hidden_layers=4, layer_types=layer_types,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, intermediate_size=96,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=24,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return model


@torch.no_grad()
def cropped(model, tokens):
    """Return how far the next logits are off after crop(-10), their scale, and the cache."""
    cache = DynamicCache(config=model.config)
    cache.activate_past_recording()
    model(tokens, cache=cache)
    before = {i: layer.recurrent_states[0].clone() for i, layer in enumerate(cache.layers)
              if getattr(layer, "recurrent_states", None)}
    cache.crop(-10)
    moved = any(not torch.equal(state, cache.layers[i].recurrent_states[0]) for i, state in before.items())
    length, croppable = cache.get_seq_length(), cache.is_croppable
    after_crop = model(tokens[:, 90:91], cache=cache).logits[0, -1]
    fresh = DynamicCache(config=model.config)
    model(tokens[:, :90], cache=fresh)
    expected = model(tokens[:, 90:91], cache=fresh).logits[0, -1]
    return (after_crop - expected).abs().max().item(), expected.abs().max().item(), moved, length, croppable


tokens = torch.arange(100)[None] * 37 % 256
hybrid = tiny(["linear_attention"] * 3 + ["full_attention"])
plain = DynamicCache(config=hybrid.config)
with torch.no_grad():
    hybrid(tokens, cache=plain)
try:
    plain.crop(-10)
    refused = "no error"
except RuntimeError as error:
    refused = "RuntimeError"
off, scale, moved, length, croppable = cropped(hybrid, tokens)
control, *_ = cropped(tiny(["full_attention"] * 4), tokens)
print("refused first:", refused)
print(f"after crop(-10): {length} tokens by get_seq_length(), is_croppable={croppable}")
print("recurrent states moved back:", moved)
print(f"next logits differ from those of a cache of 90 tokens by {off:.2f}, where the largest is {scale:.2f}")
print(f"attention alone (control): they differ by {control:.2f}")
as_seen = refused == "RuntimeError" and length == 90 and not moved and off > 0.1 and control < 1e-3
sys.exit(0 if as_seen else "the behaviour has changed")
PYTHON
