"""What a model really holds after a prompt: the tensors that the byte formulas are measured against.

*Sequence* tensors are the keys and values of the two cache layers that grow with every token, by exact
class. Everything else that the caches hold is *state*, wherever it lives: in layers, in a cache object of
the family's own, in a plain list, or on the model's modules.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionAndFullAttentionLayer

__all__ = ["RealTensors", "prefill"]

_SEQUENCE_CLASSES = (DynamicLayer, LinearAttentionAndFullAttentionLayer)
# A constant of the configuration that sliding layers keep as a tensor; it is not state.
_CONSTANTS = ("_sliding_window_tensor",)


@dataclass(frozen=True)
class RealTensors:
    """The tensors that one prompt left behind, and how to go on from them."""

    model: PreTrainedModel
    cache: Any
    logits: torch.Tensor

    @property
    def state(self) -> list[torch.Tensor]:
        """Tensors that one checkpoint must save, each once."""
        found = {id(tensor): tensor for tensor in self._walk(self._roots(), sequence=False)}
        return list(found.values())

    @property
    def sequence(self) -> list[torch.Tensor]:
        """Keys and values with one entry per token."""
        found = {id(tensor): tensor for tensor in self._walk(self._roots(), sequence=True)}
        return list(found.values())

    @property
    def state_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state)

    @property
    def sequence_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.sequence)

    def resume(self, tokens: torch.Tensor, position: int) -> torch.Tensor:
        """Return the logits of ``tokens`` decoded one by one: the path that every family gets right."""
        logits = []
        with torch.no_grad():
            for offset in range(tokens.shape[1]):
                output = _call(self.model, tokens[:, offset : offset + 1], self.cache, position + offset)
                logits.append(output.logits[:, -1])
        return torch.stack(logits, dim=1)

    def _roots(self) -> list[Any]:
        if self.model.config.model_type != "recurrent_gemma":
            return [self.cache]
        modules: list[Any] = [self.cache]
        for module in self.model.modules():
            modules += [
                vars(module)[name] for name in ("conv1d_state", "recurrent_states") if name in vars(module)
            ]
        return modules

    def _walk(self, value: Any, *, sequence: bool) -> Iterator[torch.Tensor]:
        if isinstance(value, torch.Tensor):
            if not sequence:
                yield value
        elif isinstance(value, dict):
            for item in value.values():
                yield from self._walk(item, sequence=sequence)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self._walk(item, sequence=sequence)
        elif type(value).__module__.startswith("transformers.") and hasattr(value, "__dict__"):
            if value is self.model.config:
                return
            for name, item in vars(value).items():
                if name in _CONSTANTS:
                    continue
                if type(value) in _SEQUENCE_CLASSES and name in ("keys", "values"):
                    if sequence and item is not None:
                        yield item
                else:
                    yield from self._walk(item, sequence=sequence)


def prefill(model: PreTrainedModel, tokens: torch.Tensor) -> RealTensors:
    """Run ``tokens`` from an empty cache."""
    cache = None
    if model.config.model_type == "recurrent_gemma":
        cache = DynamicCache(config=model.config)
        for module in model.modules():
            for name in ("conv1d_state", "recurrent_states"):
                if name in vars(module):
                    setattr(module, name, None)
    with torch.no_grad():
        output = _call(model, tokens, cache, 0)
    return RealTensors(model, output.get(_cache_argument(model), cache), output.logits)


def _call(model: PreTrainedModel, tokens: torch.Tensor, cache: Any, position: int) -> Any:
    arguments = {_cache_argument(model): cache}
    if "position_ids" in inspect.signature(model.forward).parameters:
        arguments["position_ids"] = torch.arange(position, position + tokens.shape[1])[None]
    return model(tokens, use_cache=True, **arguments)


def _cache_argument(model: PreTrainedModel) -> str:
    # Since transformers 5.24 most families call it "cache".
    accepted = inspect.signature(model.forward).parameters
    return next(name for name in ("cache", "past_key_values", "cache_params", "state") if name in accepted)
