"""Tiny random models, one per family: the table that every test over "all families" walks.

A tiny model is honest about its family (same code path, same mix of layer kinds) and small enough to run
hundreds of times on a CPU. Two rules make it useful as evidence:

* *It can fail.* Some default initialisations all but silence the recurrence, and then a lost state would go
  unnoticed. So every parameter is drawn anew at a scale where zeroing a restored state moves the logits by
  far more than rounding does (``tests/footprint/test_families.py`` measures it).
* *It replays.* The weights depend on ``seed`` alone, and the global random state is left as it was.
"""

import copy
import math
from collections.abc import Callable

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)

from family_options import COMMON, OPTIONS, VOCABULARY_SIZE

__all__ = [
    "ALL_FAMILIES",
    "BROKEN_UPSTREAM_FAMILIES",
    "CONTROL_FAMILIES",
    "COUNTED_FAMILIES",
    "FORMULA_FAMILIES",
    "MULTIMODAL_FAMILIES",
    "RECURRENT_FAMILIES",
    "tiny_config",
    "tiny_model",
    "tiny_prompt",
]

# Names of the text model where the family's own name belongs to a multimodal wrapper.
_MODEL_TYPES = {
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen4_exp": "qwen4_exp_text",
    "inkling": "inkling_text",
    "inkling2": "inkling2_text",
    "inkling2_loop": "inkling2_loop_text",
    "gemma3": "gemma3_text",
}

CONTROL_FAMILIES: tuple[str, ...] = ("qwen3", "gpt_oss", "gemma3")
"""Plain transformers: no recurrent state, two of them with sliding windows."""

BROKEN_UPSTREAM_FAMILIES: tuple[str, ...] = (
    "mamba",
    "falcon_mamba",
    "jamba",
    "zamba",
    "recurrent_gemma",
    "minimax",
    "bamba",
)
"""Families whose own code continues wrongly from a restored state and needs a fix first."""

RECURRENT_FAMILIES: tuple[str, ...] = tuple(
    family for family in OPTIONS if family not in CONTROL_FAMILIES + BROKEN_UPSTREAM_FAMILIES
)
"""Families that resume correctly as they are."""

MULTIMODAL_FAMILIES: tuple[str, ...] = ("glm5_next", "nemotron_h_omni")
"""Families whose only class also takes images; they are run on text."""

COUNTED_FAMILIES: tuple[str, ...] = (
    "qwen4_exp",
    "zaya",
    "inkling",
    "inkling2",
    "inkling2_loop",
    "glm5_next",
)
"""Families without a byte formula: what they hold is counted on their tensors."""

ALL_FAMILIES: tuple[str, ...] = RECURRENT_FAMILIES + CONTROL_FAMILIES + BROKEN_UPSTREAM_FAMILIES

FORMULA_FAMILIES: tuple[str, ...] = tuple(
    family for family in ALL_FAMILIES if family not in COUNTED_FAMILIES + MULTIMODAL_FAMILIES
)


def tiny_config(family: str) -> PreTrainedConfig:
    """Return a fresh configuration of ``family``: 256 tokens, hidden size 64, four layers of every kind."""
    options = copy.deepcopy(OPTIONS[family])
    if "text_config" not in options:
        options = COMMON | options
    return AutoConfig.for_model(_MODEL_TYPES.get(family, family), **options)


def tiny_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    """Return ``family``'s tiny model on the CPU, in evaluation mode, its weights a function of ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = tiny_config(family)
        auto = AutoModelForCausalLM if family not in MULTIMODAL_FAMILIES else AutoModelForImageTextToText
        model = auto.from_config(config, dtype=torch.float32)
        _draw_parameters(model)
    # Drawn in fp32 whatever the type, so that the types share weights; the configuration must not say so.
    for config in {id(c): c for c in (model.config, model.config.get_text_config(decoder=True))}.values():
        config.dtype = dtype
    model.to(dtype)
    # What transformers leaves in fp32 when it loads a model, whatever type is asked for.
    for name, parameter in model.named_parameters():
        if any(f".{kept}." in f".{name}." for kept in model._keep_in_fp32_modules_strict):
            parameter.data = parameter.data.float()
    return model.eval()


def tiny_prompt(num_tokens: int, seed: int = 0) -> torch.Tensor:
    """Return ``int64[1, num_tokens]`` random token ids, none of them a special token."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY_SIZE, (1, num_tokens), generator=generator)


def _draw_parameters(model: PreTrainedModel) -> None:
    """Draw every parameter anew, by name where its role fixes a scale, else by fan-in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            last = name.rsplit(".", 1)[-1]
            draw = _DRAWS_BY_NAME.get(last)
            if draw is not None:
                parameter.copy_(draw(parameter))
            elif "embed" in name or ("conv" in name and last == "weight"):
                parameter.normal_(std=0.5)
            elif parameter.ndim >= 2:
                parameter.normal_(std=1.0 / math.sqrt(parameter.shape[-1]))
            else:
                # Norms and biases keep their centre (some norms scale by weight, some by 1 + weight).
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _normal(mean: float, std: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda parameter: mean + std * torch.randn_like(parameter)


# Decays that remember for tens of tokens, gates neither shut nor saturated.
_DRAWS_BY_NAME: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "A_log": _normal(-1.5, 0.5),
    "dt_bias": _normal(-1.0, 0.5),
    "D": _normal(0.0, 0.5),
    "time_decay": _normal(-2.0, 0.5),
    "time_first": _normal(0.0, 0.5),
    "time_mix_key": torch.rand_like,
    "time_mix_value": torch.rand_like,
    "time_mix_receptance": torch.rand_like,
    "recurrent_param": _normal(-3.0, 0.5),
    "temp": _normal(1.5, 0.3),
    "sinks": _normal(0.0, 0.5),
}
