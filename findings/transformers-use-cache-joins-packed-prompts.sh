#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0 (CPU). Seen in November 2026.
#
# Two texts that share nothing stand in one row, one behind the other, and `position_ids` begin anew with the second:
# what `DataCollatorWithFlattening` makes. Qwen3 and Gemma 3 see from the positions that these are two, and the second
# gets the logits that it gets alone, to the last bit, if the call says `use_cache=False`. With `use_cache=True`, which
# is what a call gets that says nothing, the second text reads the first one. GPT-OSS never looks at the positions. A
# hybrid (Qwen3.5) and Mamba-2 join the two either way: their states run on. Told where each text begins (`seq_idx`,
# `cu_seq_lens_q`), the hybrid refuses, and Mamba-2 joins them still.
#
# Why it surprises: `use_cache` is known to save work and to change no answer, and a cache that is empty before the
# call and thrown away after it decides here what a text may read. Nothing warns.
#
# Seen (largest difference of a logit to the text alone, in standard deviations of the logits):
#                  use_cache=False   use_cache=True   says nothing   told where texts begin
#   qwen3                      0.0              4.9            4.9                      0.0
#   gemma3_text                0.0              4.1            4.1                      0.0
#   gpt_oss                    5.9              5.9            5.9                      5.9
#   qwen3_5_text               5.3              5.2            5.2               ValueError
#   mamba2                     4.4              4.4            4.4                      4.4
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 numpy
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DataCollatorWithFlattening

torch.set_num_threads(1)
COMMON = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "pad_token_id": 0}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16}
FAMILIES = {
    "qwen3": HEADS,
    "gemma3_text": HEADS | {"sliding_window": 4096},
    "gpt_oss": HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_5_text": HEADS | DELTA | {"linear_value_head_dim": 16},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 32, "n_groups": 1},
}
random = torch.Generator().manual_seed(1)
first, second = (torch.randint(1, 256, (count,), generator=random).tolist() for count in (40, 50))


def batch(**told):
    """Return both texts in one row, as the collator makes it."""
    made = DataCollatorWithFlattening(**told)([{"input_ids": first}, {"input_ids": second}], return_tensors="pt")
    return {name: value for name, value in made.items() if name != "labels"}


def model_of(family):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **COMMON, **FAMILIES[family])).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def differences(family):
    model = model_of(family)
    alone = model(torch.tensor([second]), use_cache=False).logits[0]

    def difference(**call):
        try:
            logits = model(**call).logits[0, len(first) :]
        except ValueError as error:
            return type(error).__name__
        return round(((logits - alone).abs().max() / alone.std()).item(), 1)

    told = batch(return_flash_attn_kwargs=True, return_seq_idx=True)
    return [
        difference(**batch(), use_cache=False),
        difference(**batch(), use_cache=True),
        difference(**batch()),
        difference(**told, use_cache=False),
    ]


seen = {family: differences(family) for family in FAMILIES}
print(f"{'':14} use_cache=False   use_cache=True   says nothing   told where texts begin")
for family, (without, with_cache, default, told) in seen.items():
    print(f"{family:14} {without!s:>15} {with_cache!s:>16} {default!s:>14} {told!s:>24}")
as_seen = all(each[1] == each[2] > 1 for each in seen.values())
as_seen &= all(seen[name][0] == seen[name][3] == 0 for name in ("qwen3", "gemma3_text"))
as_seen &= all(seen[name][0] > 1 for name in ("gpt_oss", "qwen3_5_text", "mamba2"))
as_seen &= seen["qwen3_5_text"][3] == "ValueError" and seen["mamba2"][3] > 1
sys.exit(not as_seen)
PYTHON
