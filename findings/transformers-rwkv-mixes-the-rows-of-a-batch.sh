#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# Three prompts of 19 tokens go through an RWKV model in one batch: right. Then one token of each goes through with
# the state that came of it: the logits have the shape [3, 3, vocabulary] instead of [3, 1, vocabulary], no error,
# and the last of them are those of none of the three. Row by row the same step is right.
#
# Why it surprises: `generate` takes the last position of whatever it is given, so a batch of prompts is answered,
# fluently, and each by a mixture of all.
#
# Seen (largest difference of a logit to the 20 tokens computed at once):
#   shape of a step of three rows: [3, 3, 256]
#   three rows in one step: 1.6
#   row by row: 8.9e-07
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from transformers import RwkvConfig, RwkvForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
model = RwkvForCausalLM(
    RwkvConfig(vocab_size=256, hidden_size=64, attention_hidden_size=64, num_hidden_layers=2, context_length=512)
).eval()
ids = torch.randint(2, 255, (3, 20), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def step(rows):
    """Return the logits of the last token, computed after the state of those before it."""
    state = model(rows[:, :-1], use_cache=True).state
    return model(rows[:, -1:], state=state, use_cache=True).logits


with torch.inference_mode():
    whole = model(ids).logits[:, -1]
together = step(ids)
alone = torch.cat([step(row[None])[:, -1] for row in ids])
wrong, right = (float((each - whole).abs().max()) for each in (together[:, -1], alone))
print(f"shape of a step of three rows: {list(together.shape)}")
print(f"three rows in one step: {wrong:.2g}")
print(f"row by row: {right:.2g}")
sys.exit(not (list(together.shape) == [3, 3, 256] and wrong > 0.1 and right < 1e-4))
PYTHON
