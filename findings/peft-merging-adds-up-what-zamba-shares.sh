#!/usr/bin/env bash
# peft 0.21.2, transformers 5.24.0 and torch 2.13.0 (CPU). Seen in November 2026.
#
# The attention blocks of Zamba and Zamba2 stand in several layers with one set of weights. LoRA puts an adapter of its
# own into each of these layers, and the model answers with them as it should. `merge_and_unload` then adds the adapters
# of all layers to the one weight that they share: every layer gets the sum. Nothing is raised or warned of, with
# `safe_merge=True` neither, and the merged model can be saved. The same Zamba2 with a block for each layer is merged
# rightly, as are models that share nothing (Qwen3, Jamba).
#
# Why it surprises: PEFT warns of what embeddings and heads share, and of these not; answers with adapters are right,
# and so they are again after `unmerge_adapter`. Only the model that is handed over is another, as far from what was
# trained as one without adapters.
#
# Seen (largest difference of a logit from the model with its adapters, in standard deviations):
#   zamba2, shared by 4 layers: without adapters 3.40, merged 4.03, weight off the sum of 4 3e-08, warnings 0
#   zamba2, shared by 2 layers: without adapters 4.39, merged 3.93, weight off the sum of 2 3e-08, warnings 0
#   zamba2, a block each: without adapters 4.16, merged 0.00, weight off the sum of 1 0e+00, warnings 0
#   zamba, shared by 4 layers: without adapters 0.67, merged 0.64, weight off the sum of 4 3e-08, warnings 0
#   jamba, nothing shared: without adapters 1.54, merged 0.00, weight off the sum of 1 0e+00, warnings 0
#   qwen3, nothing shared: without adapters 2.84, merged 0.00, weight off the sum of 1 0e+00, warnings 0
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 peft==0.21.2
"$work/venv/bin/python" - 2>/dev/null <<'PYTHON'
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

torch.set_num_threads(1)
COMMON = {"vocab_size": 256, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}
HYBRIDS = {"num_hidden_layers": 8, "layers_block_type": ["linear_attention", "hybrid"] * 4}
ZAMBA2 = COMMON | HYBRIDS | {"mamba_d_state": 16, "n_mamba_heads": 8, "chunk_size": 64, "adapter_rank": 8}
MODELS = {
    "zamba2, shared by 4 layers": ("zamba2", ZAMBA2 | {"num_mem_blocks": 1}),
    "zamba2, shared by 2 layers": ("zamba2", ZAMBA2 | {"num_mem_blocks": 2}),
    "zamba2, a block each": ("zamba2", ZAMBA2 | {"num_mem_blocks": 4}),
    "zamba, shared by 4 layers": ("zamba", COMMON | HYBRIDS | {
        "num_key_value_heads": 4, "attention_head_dim": 32, "n_mamba_heads": 2, "mamba_d_state": 8,
    }),
    "jamba, nothing shared": ("jamba", COMMON | {
        "num_hidden_layers": 4, "num_key_value_heads": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
        "num_experts": 1, "num_experts_per_tok": 1, "mamba_d_state": 8,
    }),
    "qwen3, nothing shared": ("qwen3", COMMON | {"num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 16}),
}
IDS = torch.randint(3, 256, (2, 200), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


def adapted(family, options):
    """A model with random weights, and an adapter that is random too in each of its attention layers."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, pad_token_id=0, **options)).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.02 if "embed" in name else parameter.shape[-1] ** -0.5)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, target_modules=targets)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


as_seen = True
for name, (family, options) in MODELS.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = adapted(family, options)
        right = logits(model)
        with model.disable_adapter():
            plain = logits(model)
        layers = [module for key, module in model.named_modules() if key.endswith("q_proj")]
        weight = layers[-1].base_layer.weight
        sharing = [layer for layer in layers if layer.base_layer.weight is weight]
        expected = weight.detach() + sum(layer.get_delta_weight("default").detach() for layer in sharing)
        merged = model.merge_and_unload(safe_merge=True)
    told = [one for one in caught if any(word in str(one.message) for word in ("tie", "shar", "merg"))]
    found = logits(merged)
    merged_weight = [module for key, module in merged.named_modules() if key.endswith("q_proj")][-1].weight
    moved, apart = (((other - right).abs().max() / right.std()).item() for other in (plain, found))
    off_sum = (merged_weight - expected).abs().max().item()
    print(f"{name}: without adapters {moved:.2f}, merged {apart:.2f}, "
          f"weight off the sum of {len(sharing)} {off_sum:.0e}, warnings {len(told)}")
    as_seen &= moved > 0.3 and off_sum < 1e-5 and not told and (apart > 0.3 if len(sharing) > 1 else apart < 1e-3)
sys.exit(not as_seen)
PYTHON
