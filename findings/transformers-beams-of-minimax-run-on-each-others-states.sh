#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# Beam search moves rows of its cache about whenever one hypothesis takes the place of another. MiniMax keeps the states
# of its linear layers beside those of attention, and only attention is moved. So from the first change of places on
# each beam goes on from another's state. What comes out has a score that looks better than the right one, and the model
# itself finds the text all but impossible. Greedy decoding is right, and so are beams with `use_cache=False`. xLSTM and
# RWKV, which cannot be moved either, refuse with an error.
#
# Why it surprises: nothing in the answer tells. The score that is returned with it is not the probability of the text.
#
# Seen (of 10 prompts, 16 tokens each; log-probability of the answer as returned, and as the model computes it):
#   greedy: equal with and without cache 10 of 10
#   four beams: equal with and without cache 0 of 10
#   four beams, with a cache: returned -21.0 on average, in truth -70.3
#   four beams, without one:  returned -21.1 on average, in truth -21.1
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
torch.manual_seed(0)
config = AutoConfig.for_model(
    "minimax", vocab_size=256, hidden_size=64, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0,
)
model = AutoModelForCausalLM.from_config(config).eval()
for parameter in model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=0.3)
PROMPT, ANSWER = 20, 16


def answer(seed, num_beams, use_cache):
    """Return the answer to a prompt, its log-probability as returned, and as the model computes it."""
    prompt = torch.randint(1, 256, (1, PROMPT), generator=torch.Generator().manual_seed(seed))
    found = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), num_beams=num_beams, use_cache=use_cache, do_sample=False,
        max_new_tokens=ANSWER, min_new_tokens=ANSWER, return_dict_in_generate=True, output_scores=True,
    )
    tokens = found.sequences
    with torch.no_grad():
        logprobs = model(tokens, use_cache=False).logits[0, PROMPT - 1 : -1].log_softmax(-1)
    truth = logprobs.gather(-1, tokens[0, PROMPT:, None]).sum().item()
    returned = found.sequences_scores.item() * ANSWER if num_beams > 1 else None
    return tokens, returned, truth


num_equal = {}
for name, num_beams in (("greedy", 1), ("four beams", 4)):
    pairs = [[answer(seed, num_beams, use_cache) for use_cache in (True, False)] for seed in range(10)]
    num_equal[num_beams] = sum(torch.equal(cached[0], plain[0]) for cached, plain in pairs)
    print(f"{name}: equal with and without cache {num_equal[num_beams]} of 10")
means = [[sum(pair[side][part] for pair in pairs) / 10 for part in (1, 2)] for side in (0, 1)]
for name, (returned, truth) in zip(("with a cache:", "without one: "), means):
    print(f"four beams, {name} returned {returned:.1f} on average, in truth {truth:.1f}")
(cached_said, cached_truth), (plain_said, plain_truth) = means
as_seen = num_equal[1] == 10 and num_equal[4] < 5
sys.exit(not (as_seen and cached_truth < cached_said - 20 and abs(plain_said - plain_truth) < 0.1))
PYTHON
