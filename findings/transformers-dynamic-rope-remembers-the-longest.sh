#!/usr/bin/env bash
# transformers 5.24.0, torch 2.13.0. Seen in November 2026.
#
# A model with dynamic NTK rope (original context 128) is asked about 300 tokens. Its logits depend on what it was asked
# before: after a prompt of 600 tokens the frequencies of 600 are still in use, after one of 100 they are not. The longest
# sequence so far is kept on the module until a sequence fits the original context.
#
# Why it surprises: each call has no cache and is complete in itself. In a process that serves several people, an answer
# hangs on how long somebody else's prompt was.
#
# Seen (largest difference of logits from those of a fresh copy of the model):
#   300 tokens after a request of 600: 2.321
#   300 tokens after a request of 100: 0.000
#   300 tokens after 600 and then 100: 0.000
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import copy
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, logging

logging.set_verbosity_error()
torch.set_num_threads(1)
torch.manual_seed(0)
config = AutoConfig.for_model(
    "llama", vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128,
    rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0},
)
model = AutoModelForCausalLM.from_config(config).eval()
for parameter in model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
draw = torch.Generator().manual_seed(1)
long, middle, short = (torch.randint(256, (1, n), generator=draw) for n in (600, 300, 100))


def logits(model, *prompts):
    with torch.no_grad():
        return [model(prompt).logits[0, -1] for prompt in prompts][-1]


def after(prompt, *earlier):
    return (logits(copy.deepcopy(model), *earlier, prompt) - logits(copy.deepcopy(model), prompt)).abs().max().item()


found = after(middle, long), after(middle, short), after(middle, long, short)
print(f"300 tokens after a request of 600: {found[0]:.3f}")
print(f"300 tokens after a request of 100: {found[1]:.3f}")
print(f"300 tokens after 600 and then 100: {found[2]:.3f}")
sys.exit(0 if found[0] > 0.01 and found[1] == found[2] == 0 else "the behaviour has changed")
PYTHON
