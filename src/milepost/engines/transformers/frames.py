"""Clones and comparisons of the object graphs that a model keeps between calls, by one rule for all classes.

A tensor object that is held in two places is one tensor in the clone too; tensors that merely share memory
become independent. Configuration is taken over by reference. What holds more than its attributes show is
refused. Layers of our own become upstream's (``sequence_layers``).
"""

from collections.abc import Callable, Mapping
from enum import Enum
from types import FunctionType, MappingProxyType
from typing import Any

import torch
from transformers.configuration_utils import PreTrainedConfig

from milepost.engines.transformers.sequence_layers import plain_class, plain_vars
from milepost.errors import UnsupportedModelError

__all__ = ["CONSTANT_TENSORS", "Cloner", "has_same_bits"]

# Constants of a layer that look like state: cloning them would charge a checkpoint for configuration.
CONSTANT_TENSORS = frozenset({"_sliding_window_tensor"})
_BY_REFERENCE = (
    type(None), bool, int, float, complex, str, bytes, type, Enum, FunctionType,
    torch.dtype, torch.device, torch.nn.Module, PreTrainedConfig,
)  # fmt: skip


class Cloner:
    """Clones an object graph once, counting the bytes of the tensors it owns.

    Attributes:
        attribute: Where the tensor that is being copied hangs; ``state`` where it is no object's.
        copy_tensor: Makes the copy.
    """

    def __init__(self, copy_tensor: Callable[[torch.Tensor], torch.Tensor] = torch.clone) -> None:
        self.num_bytes = 0
        self.attribute = "state"
        self.copy_tensor = copy_tensor
        # By id, with each clone what it is of, so that nothing else gets the id meanwhile: some attributes
        # are made as they are read.
        self._memo: dict[int, tuple[Any, Any]] = {}

    def clone(self, value: Any, *, skip: Mapping[int, frozenset[str]] = MappingProxyType({})) -> Any:
        """Return a clone of ``value``.

        Args:
            value: What is cloned; what was met before is the same again.
            skip: By the id of an object, attributes of it that its clone has None for.

        Raises:
            UnsupportedModelError: it holds what cannot be cloned safely.
        """
        if isinstance(value, _BY_REFERENCE):
            return value
        if id(value) not in self._memo:
            self._memo[id(value)] = value, self._clone_new(value, skip)
        return self._memo[id(value)][1]

    def _clone_new(self, value: Any, skip: Mapping[int, frozenset[str]]) -> Any:
        if isinstance(value, torch.Tensor):
            copy = self.copy_tensor(value).detach()
            self.num_bytes += copy.nbytes
            return copy
        if type(value) is dict:
            return {key: self.clone(item, skip=skip) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.clone(item, skip=skip) for item in value)
        has_slots = any(vars(base).get("__slots__") for base in type(value).__mro__)
        # Whatever is built by a __new__ of its own holds more than its __dict__ shows.
        is_plain = getattr(type(value), "__new__", None) is object.__new__ and hasattr(value, "__dict__")
        if has_slots or not is_plain:
            raise UnsupportedModelError(
                f"the model's cache holds a {type(value).__module__}.{type(value).__qualname__}, "
                "which cannot be cloned safely"
            )
        return self._clone_object(value, skip.get(id(value), frozenset()), skip)

    def _clone_object(self, value: Any, left_out: frozenset[str], skip: Mapping[int, frozenset[str]]) -> Any:
        copy: Any = object.__new__(plain_class(type(value)))
        # Entered before its attributes, so that a cycle ends here.
        self._memo[id(value)] = value, copy
        for name, item in plain_vars(value).items():
            if name in left_out:
                copy.__dict__[name] = None
            elif name in CONSTANT_TENSORS:
                copy.__dict__[name] = item
            else:
                outer, self.attribute = self.attribute, name
                copy.__dict__[name] = self.clone(item, skip=skip)
                self.attribute = outer
        return copy


def has_same_bits(one: Any, other: Any) -> bool:
    """Return whether two frames, or collections of tensors, hold the same values, tensors bit for bit."""
    return _has_same_bits(one, other, set())


def _has_same_bits(one: Any, other: Any, compared: set[tuple[int, int]]) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return _are_same_tensors(one, other)
    if isinstance(one, _BY_REFERENCE):
        return bool(one is other or one == other)
    if (id(one), id(other)) in compared:
        return True
    # Entered before what it holds, so that a cycle ends here.
    compared.add((id(one), id(other)))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(
            _has_same_bits(mine, theirs, compared) for mine, theirs in zip(one, other, strict=True)
        )
    mine, theirs = (each if isinstance(each, dict) else vars(each) for each in (one, other))
    return mine.keys() == theirs.keys() and all(
        _has_same_bits(mine[key], theirs[key], compared) for key in mine
    )


def _are_same_tensors(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    # As bytes: a NaN equals itself, and the two zeros differ.
    pair = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(*pair)
