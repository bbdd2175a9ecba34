#!/usr/bin/env bash
# torch 2.13.0 and transformers 5.24.0, on a CPU with bf16 instructions (avx512_bf16 or amx_bf16). Seen in
# November 2026.
#
# torch.set_float32_matmul_precision("medium") is documented for float32 matrix products, and mostly known from
# GPUs. On a CPU it changes what a model in *bfloat16* answers, if it is a hybrid: its scans compute in fp32
# whatever the weights' type. The same switch changes nothing for a bf16 model of attention alone.
#
# Why it surprises: a bf16 model "has no fp32 products". Two processes with the same weights, type and tokens,
# one of which imported a library that sets the switch, have other logits and other recurrent states.
#
# Seen (largest difference of logits between "highest" and "medium"):
#   hybrid, bfloat16: 1.07
#   hybrid, float32: 1.34
#   attention alone, bfloat16: 0.00
#
# Exits 1 if the behaviour is another, and where the CPU has no such instructions.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, logging

logging.set_verbosity_error()
torch.set_num_threads(1)


def difference(layer_types, dtype):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3_5_text", vocab_size=256, hidden_size=128, num_hidden_layers=4, layer_types=layer_types,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, intermediate_size=256,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=32, linear_value_head_dim=32,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.to(dtype)
    tokens = torch.arange(256)[None] * 37 % 256
    logits = []
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        with torch.no_grad():
            logits.append(model(tokens).logits.float())
    return (logits[0] - logits[1]).abs().max().item()


hybrid = ["linear_attention"] * 3 + ["full_attention"]
in_bf16, in_fp32 = difference(hybrid, torch.bfloat16), difference(hybrid, torch.float32)
control = difference(["full_attention"] * 4, torch.bfloat16)
print(f"hybrid, bfloat16: {in_bf16:.2f}")
print(f"hybrid, float32: {in_fp32:.2f}")
print(f"attention alone, bfloat16: {control:.2f}")
sys.exit(0 if in_bf16 > 0 and in_fp32 > 0 and control == 0 else "the behaviour has changed, or no bf16 instructions")
PYTHON
