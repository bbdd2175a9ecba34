"""From what people hand over to the transformers model inside it, or an error that says what to give instead.

A wrapper that only adds to the modules of a model (LoRA and its kin) computes what the model inside computes:
that one is run, and the wrapper stays as it is. One that does more than that (virtual tokens before the
prompt, a second pass to choose adapters) is refused: nobody but itself could run it.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from milepost.errors import ConfigurationError, UnsupportedModelError

__all__ = ["check_weights", "unwrapped"]

_log = logging.getLogger(__name__)

_WANTED = "give a folder, a hub id or a causal language model of transformers"
# Adapters whose wrapper runs the model twice, or needs more than tokens, by PEFT's names for them.
_CHOOSING_ADAPTERS = frozenset({"XLORA", "POLY"})
# Enough tokens for a wrapper that does something of its own to show.
_NUM_COMPARED_TOKENS = 8


def unwrapped(source: object) -> PreTrainedModel:
    """Return the model that ``source`` is, or wraps, in evaluation mode.

    Raises:
        ConfigurationError: it is something else; the message says what, and what to give.
        UnsupportedModelError: it is a wrapper that computes something of its own.
    """
    model = source
    while isinstance(model, torch.nn.Module) and not isinstance(model, PreTrainedModel):
        model.eval()
        model = _inside(model)
    if not isinstance(model, PreTrainedModel):
        raise ConfigurationError(f"model is {_described(source)}")
    return model.eval()


def check_weights(model: PreTrainedModel) -> None:
    """Refuse a model whose weights are not there.

    Raises:
        UnsupportedModelError: they were never loaded, or are offloaded out of its own sight.
    """
    missing = [name for name, weight in model.named_parameters() if weight.is_meta]
    # Some hooks of accelerate fetch a weight when its module is called, and nobody has to know.
    are_fetched = any(hasattr(module, "_hf_hook") for module in model.modules())
    if missing and (not are_fetched or model.device.type == "meta"):
        raise UnsupportedModelError(
            f"{model.config.model_type}: {len(missing)} of its weights, such as {missing[0]}, are on the "
            "meta device: offloaded, or never loaded; load the model with its weights in memory"
        )


def _inside(wrapper: torch.nn.Module) -> object:
    """Return what a module wraps, None where it is no wrapper that is known."""
    if type(wrapper).__module__.startswith("peft."):
        return _inside_peft(wrapper)
    children = dict(wrapper.named_children())
    if "_orig_mod" in children:
        _log.warning(
            "torch.compile: the model inside is run, uncompiled: which kernel computes a length would depend "
            "on what was compiled before it, and the bits of a state with it"
        )
        return children["_orig_mod"]
    if isinstance(wrapper, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        _log.warning("%s: the model inside is run, on its own device", type(wrapper).__name__)
        return wrapper.module
    # A language model with a value head, as reinforcement learning has them.
    return children.get("pretrained_model")


def _inside_peft(wrapper: Any) -> object:
    for name, adapter in getattr(wrapper, "peft_config", {}).items():
        kind = getattr(adapter.peft_type, "value", str(adapter.peft_type))
        reason = None
        if getattr(adapter, "is_prompt_learning", False):
            reason = "puts virtual tokens before the prompt, or keys and values of its own into the cache"
        elif kind in _CHOOSING_ADAPTERS:
            reason = "decides anew for each prompt how its adapters are mixed"
        elif getattr(adapter, "alora_invocation_tokens", None):
            reason = "begins to act at an invocation token inside the prompt"
        if reason:
            raise UnsupportedModelError(
                f"PEFT adapter {name!r} ({kind}) {reason}, which the model inside knows nothing of; merge it "
                "where PEFT can, or give the model without it"
            )
    base = getattr(wrapper, "base_model", None)
    model = base if isinstance(base, PreTrainedModel) else getattr(base, "model", None)
    if isinstance(model, PreTrainedModel):
        _check_same(wrapper, model)
    return model


@torch.inference_mode()
def _check_same(wrapper: Any, model: PreTrainedModel) -> None:
    """The net under what is known of wrappers: both must give the same logits."""
    check_weights(model)
    tokens = torch.arange(_NUM_COMPARED_TOKENS, device=model.device)[None]
    try:
        logits = wrapper(input_ids=tokens).logits
    except Exception as error:  # whatever a wrapper needs beyond tokens
        raise UnsupportedModelError(
            f"{type(wrapper).__name__} cannot be run on tokens alone: {type(error).__name__}: {error}"
        ) from error
    if not torch.equal(logits, model(input_ids=tokens).logits):
        raise UnsupportedModelError(
            f"{type(wrapper).__name__} computes other logits than the model inside it, so neither can stand "
            "for the other; merge the adapters, or give the model inside"
        )


def _described(source: object) -> str:
    """Say what was given, and what to give instead."""
    kind = type(source).__name__
    holds_tensors = isinstance(source, Mapping) and any(isinstance(v, torch.Tensor) for v in source.values())
    described = (
        (isinstance(source, type), f"the class {getattr(source, '__name__', '')} itself; {_WANTED}"),
        (
            isinstance(source, PreTrainedTokenizerBase),
            f"a tokenizer ({kind}); {_WANTED}, and it as tokenizer=",
        ),
        (isinstance(source, PreTrainedConfig), f"a configuration ({kind}) without weights; {_WANTED}"),
        (holds_tensors, f"a {kind} of weights; load them into a model, and give that"),
        (
            isinstance(getattr(source, "model", None), PreTrainedModel),
            f"a {kind} with a model inside; give its .model, and its .tokenizer as tokenizer=",
        ),
        (
            isinstance(source, torch.nn.Module),
            f"a {kind}, which is no model of transformers and wraps none that is known; {_WANTED}",
        ),
        (True, f"{source!r:.60} ({kind}); {_WANTED}"),
    )
    return next(text for holds, text in described if holds)
