#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# A prompt of 150 tokens whose first 128 are in a cache already is given to `model.generate` with that cache, once
# whole and once as the 22 tokens that are left. A hybrid (Qwen3.5) takes either and gives the logits of the
# prompt computed from its start, bit for bit: it looks at its cache and drops what it has. Mamba-2 takes either
# too, without a word, but given the whole prompt it computes all 150 tokens on top of the state of the first
# 128. Given the rest it is exact.
#
# Why it surprises: the call that is documented for caches (all ids, `attention_mask` over all, the cache) is
# right for every family with keys and values, and wrong for those that keep states alone.
#
# Seen (largest difference of a logit, in standard deviations of the logits):
#   qwen3_5, all 150 tokens: 0.0     the 22 left: 0.0
#   mamba2,  all 150 tokens: 0.099, and another first token     the 22 left: 0.0
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from transformers import Mamba2Config, Mamba2ForCausalLM, Qwen3_5ForCausalLM, Qwen3_5TextConfig

torch.set_num_threads(1)
common = {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 4, "pad_token_id": 0, "bos_token_id": 1,
          "eos_token_id": 255}
hybrid = Qwen3_5TextConfig(
    **common, intermediate_size=128, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
    linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=32, linear_value_head_dim=32,
)
# Weights and time steps that let a state live longer than a dozen tokens, as trained ones do.
recurrent = Mamba2Config(
    **common, num_heads=8, head_dim=16, expand=2, state_size=16, n_groups=1, chunk_size=64,
    initializer_range=0.3, time_step_min=0.001, time_step_max=0.02,
)
ids = torch.randint(2, 255, (1, 150), generator=torch.Generator().manual_seed(1))


def first_logits(model, tokens, **options):
    made = model.generate(
        tokens, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True, **options
    )
    return made.logits[0]


differences = {}
for kind, config in ((Qwen3_5ForCausalLM, hybrid), (Mamba2ForCausalLM, recurrent)):
    torch.manual_seed(0)
    model = kind(config).eval()
    for name, tokens in (("all 150 tokens", ids), ("the 22 left", ids[:, 128:])):
        with torch.inference_mode():
            whole = first_logits(model, ids)
            cache = model(ids[:, :128], use_cache=True).cache
            resumed = first_logits(model, tokens, attention_mask=torch.ones_like(ids), cache=cache)
        difference = float((resumed - whole).abs().max() / whole.std())
        family = config.model_type.removesuffix("_text")
        differences[family, name] = difference
        token = "" if int(resumed.argmax()) == int(whole.argmax()) else ", and another first token"
        print(f"{family}, {name}: {difference:.2g}{token}")

as_seen = differences.pop(("mamba2", "all 150 tokens")) > 0.05 and not any(differences.values())
sys.exit(not as_seen)
PYTHON
