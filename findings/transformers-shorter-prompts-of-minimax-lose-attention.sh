#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# Two prompts, 40 and 24 tokens, are answered by MiniMax in one batch: padded on the left, with their attention mask,
# by `generate`. Where the first layer is linear, as in MiniMax-Text-01 (one layer of attention after seven linear
# ones), the first token of the shorter prompt's answer is right. From the second on its layers of attention give
# nothing at all: the log-probabilities are those of the model, prompt unpadded, with the output of these layers set to
# zero at every token after the prompt. The longer prompt's answer is right throughout. So is the shorter prompt's
# alone, or with `use_cache=False`, or where the first layer is attention, with which a `MiniMaxConfig` begins if it is
# not told otherwise.
#
# Why it surprises: both kinds of layers mask the prompt itself rightly, so a comparison of first tokens passes, and one
# without a cache. The order of the layers decides. Nothing warns, and no value is NaN. Behind it: the mask of a step
# takes the length of the past from layer 0. A linear layer keeps no keys there, so the length is 0, and the mask is one
# entry, that of the row's first place, for all keys: padding in the shorter row, a token in the longer. That is with
# `sdpa`, the default. With `eager` all keys, those of padding too, get one weight.
#
# Seen (largest difference of a log-probability to the model on the unpadded prompt, of 12 tokens):
#                                               first token   the others   the others, no attention after the prompt
#   linear first, the longer prompt of a batch       0.000        0.000         5.659
#   linear first, the shorter prompt                 0.000        6.189         0.000
#   linear first, the shorter, without a cache       0.000        0.000         7.424
#   linear first, the shorter prompt alone           0.000        0.000         7.424
#   attention first, the shorter prompt              0.000        0.000         6.613
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
ANSWER = 12
LINEAR_FIRST = ["linear_attention"] * 7 + ["full_attention"]
ATTENTION_FIRST = ["full_attention"] + ["linear_attention"] * 7
generator = torch.Generator().manual_seed(1)
LONG, SHORT = (torch.randint(3, 256, (1, length), generator=generator) for length in (40, 24))


def made(layer_types):
    """Return a small MiniMax with random weights."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(
        "minimax", vocab_size=256, hidden_size=64, intermediate_size=64, num_hidden_layers=8, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, pad_token_id=0,
        layer_types=layer_types,
    )).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def answered(model, prompts, use_cache):
    """The answers to a batch of prompts, padded on the left, with the log-probabilities of their tokens."""
    length = max(prompt.shape[1] for prompt in prompts)
    rows = torch.cat([torch.nn.functional.pad(prompt, (length - prompt.shape[1], 0)) for prompt in prompts])
    found = model.generate(
        rows, attention_mask=(rows != 0).long(), max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False,
        use_cache=use_cache, return_dict_in_generate=True, output_logits=True,
    )
    answers = found.sequences[:, length:]
    return answers, torch.stack(found.logits, 1).log_softmax(-1).gather(-1, answers[..., None])[..., 0]


@torch.no_grad()
def recomputed(model, prompt, answer, with_attention):
    """Log-probabilities of an answer token by token, with or without attention after the prompt."""
    hooks = []
    output, found = model(prompt, use_cache=True), []
    if not with_attention:
        for kind, layer in zip(model.config.layer_types, model.model.layers):
            if kind == "full_attention":
                hooks.append(layer.self_attn.o_proj.register_forward_hook(lambda module, inputs, out: out * 0))
    for place, token in enumerate(answer.tolist(), prompt.shape[1]):
        found.append(output.logits[0, -1].log_softmax(-1)[token])
        output = model(torch.tensor([[token]]), position_ids=torch.tensor([[place]]), cache=output.cache)
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


as_seen = True
print(f"{'':43} first token   the others   the others, no attention after the prompt")
for name, layer_types, prompts, row, use_cache, is_right in (
    ("linear first, the longer prompt of a batch", LINEAR_FIRST, (LONG, SHORT), 0, True, True),
    ("linear first, the shorter prompt", LINEAR_FIRST, (LONG, SHORT), 1, True, False),
    ("linear first, the shorter, without a cache", LINEAR_FIRST, (LONG, SHORT), 1, False, True),
    ("linear first, the shorter prompt alone", LINEAR_FIRST, (SHORT,), 0, True, True),
    ("attention first, the shorter prompt", ATTENTION_FIRST, (LONG, SHORT), 1, True, True),
):
    model = made(layer_types)
    answers, seen = answered(model, prompts, use_cache)
    kept, without = (
        (seen[row] - recomputed(model, prompts[row], answers[row], with_attention)).abs()
        for with_attention in (True, False)
    )
    first, others, silent = kept[0].item(), kept[1:].max().item(), without[1:].max().item()
    print(f"{name:43} {first:10.3f} {others:12.3f} {silent:13.3f}")
    right, wrong = (others, silent) if is_right else (silent, others)
    as_seen &= first < 0.01 and right < 0.01 and wrong > 0.5
sys.exit(not as_seen)
PYTHON
