#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# The length of a cache is noted, 8 tokens of a draft go in, and as many as came since are cropped again. With a
# `DynamicCache` the next token gets the logits that it gets without the draft. With a `StaticCache` the difference of
# the two lengths is 0 and nothing is cropped: `get_seq_length()`, which is declared to return an int, hands out the
# counter itself, a tensor that the layers add to in place. What was noted before is, when it is read, the length now.
#
# Why it surprises: a number that is noted changes afterwards, in one of two classes that stand for each other. No call
# fails, and the text goes on from a draft that was thrown away.
#
# Seen (tokens, and the largest difference of a logit to the 31 tokens computed at once):
#   DynamicCache: noted 30 as int, 30 after the draft, 8 cropped, logits differ by 6e-06
#   StaticCache: noted 30 as Tensor, 38 after the draft, 0 cropped, logits differ by 9
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, StaticCache

torch.set_num_threads(1)
torch.manual_seed(0)
config = AutoConfig.for_model(
    "qwen3", vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16,
)
model = AutoModelForCausalLM.from_config(config).eval()
for parameter in model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=0.3)
tokens, draft = torch.randint(256, (1, 31)), torch.randint(256, (1, 8))


@torch.no_grad()
def without_the_draft(cache):
    """Return the type of the noted length, it again after the draft, the tokens cropped, and the difference."""
    model(tokens[:, :30], cache=cache)
    noted = cache.get_seq_length()
    before = int(noted)
    model(draft, cache=cache)
    num_drafted = int(cache.get_seq_length() - noted)
    after = int(noted)
    cache.crop(-num_drafted)
    difference = model(tokens[:, 30:], cache=cache).logits[0, -1] - model(tokens, use_cache=False).logits[0, -1]
    return type(noted).__name__, before, after, num_drafted, difference.abs().max().item()


seen = {}
for cache in (DynamicCache(config=config), StaticCache(config=config, max_cache_len=64)):
    name = type(cache).__name__
    seen[name] = kind, before, after, num_cropped, difference = without_the_draft(cache)
    print(f"{name}: noted {before} as {kind}, {after} after the draft, {num_cropped} cropped, "
          f"logits differ by {difference:.0g}")
as_seen = seen["DynamicCache"][:4] == ("int", 30, 30, 8) and seen["DynamicCache"][4] < 1e-3
as_seen &= seen["StaticCache"][:4] == ("Tensor", 30, 38, 0) and seen["StaticCache"][4] > 1
sys.exit(not as_seen)
PYTHON
