"""A model's forward call, however its family spells what it takes and where it keeps its cache."""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from milepost.engines.transformers.cache_argument import cache_argument

__all__ = ["ModelCall"]


class ModelCall:
    """See the module.

    Args:
        model: Called as it is by then; where it was compiled in place, what was compiled is.

    Attributes:
        cache_name: What the family calls its cache.
        takes_positions: Whether it is told where its tokens stand.

    Raises:
        UnsupportedModelError: The model is no causal language model, or its forward call takes no cache.
        ConfigurationError: The model is in training mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        accepted = inspect.signature(model.forward).parameters
        self.cache_name = cache_argument(model)
        self.takes_positions = "position_ids" in accepted
        self._takes_logits_to_keep = "logits_to_keep" in accepted
        self._model = model

    @property
    def is_compiled(self) -> bool:
        """Whether what is called was compiled, and so traced over what it was called with."""
        return self._model._compiled_call_impl is not None

    def __call__(
        self,
        cache: Any,
        tokens: torch.Tensor,
        position_ids: torch.Tensor,
        *,
        num_logits: int = 1,
        mask: torch.Tensor | None = None,
    ) -> Any:
        """Run ``tokens`` after what ``cache`` has seen; return what the model does.

        Args:
            cache: Of the model's own kind; updated.
            tokens: Shape ``[sequences, tokens]``.
            position_ids: Where they stand, of the same shape.
            num_logits: Of how many of the last tokens logits are wanted; a family may give them all.
            mask: ``bool[sequences, columns]``, which columns of the cache each may see; None for all.
        """
        arguments: dict[str, Any] = {"input_ids": tokens, "use_cache": True, self.cache_name: cache}
        if self.takes_positions:
            arguments["position_ids"] = position_ids
        if self._takes_logits_to_keep:
            arguments["logits_to_keep"] = num_logits
        if mask is not None:
            arguments["attention_mask"] = mask
        model = self._model
        return (model._call_impl if self.is_compiled else model)(**arguments)

    def cache_of(self, outputs: Any, given: Any) -> Any:
        """Return the cache after a call with ``given``: that one, where a family keeps its own to itself."""
        return getattr(outputs, self.cache_name, given)
