"""Under which name a model's forward call takes the cache."""

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from milepost.errors import ConfigurationError, UnsupportedModelError

__all__ = ["cache_among", "cache_argument"]

# Forward arguments that carry a cache: the one name since transformers 5.24, the two before it, and rwkv's.
_CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params", "state")


def cache_among(arguments: Mapping[str, Any]) -> Any:
    """Return the cache that a submodule was called with, by whatever name, or None."""
    return next((arguments[name] for name in _CACHE_ARGUMENTS if arguments.get(name) is not None), None)


def cache_argument(model: PreTrainedModel) -> str:
    """Return the name under which ``model``'s forward call takes its cache.

    Raises:
        UnsupportedModelError: It is no causal language model, or takes no cache.
        ConfigurationError: It is in training mode.
    """
    family = model.config.model_type
    if model.training:
        raise ConfigurationError("the model is in training mode; call model.eval() before opening it")
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{family}: an encoder-decoder; only decoder-only language models can be resumed"
        )
    if not model.can_generate():
        raise UnsupportedModelError(
            f"{family}: {type(model).__name__} predicts no next token; open a causal language model"
        )
    accepted = inspect.signature(model.forward).parameters
    for name in _CACHE_ARGUMENTS:
        if name in accepted:
            return name
    raise UnsupportedModelError(
        f"{family}: its forward call takes none of {', '.join(_CACHE_ARGUMENTS)}, "
        "so there is no state to keep"
    )
