"""An inventory in words: what is where, by value where a value tells all, by identity where it does not.

Two descriptions are equal exactly when the model computes alike as far as this can be seen; so a switch that
is set back is described as before. Weights are not in it: what became of them is told by their identity and
their counters, and a number that counts those changes (``ModelWatch``).
"""

import types
import weakref
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedConfig

from milepost.engines.transformers.watch.inventory import Container, Inventory, Place, Role, is_plain
from milepost.engines.transformers.watch.numeric_switches import SWITCH_NAMES

__all__ = ["Description", "Serials", "differences"]

# What a place holds, by the path of its container and its key.
Words = dict[Place, str]
_SHAPING_SWITCHES = ("default dtype", "autocast", "autocast on CPU")
_NUMERICS = "torch"
# A longer or deeper container has words of its own.
_MOST_ITEMS, _MOST_DEPTH = 256, 3


class Serials:
    """Numbers objects in the order in which they are met. An object that is gone never lends its number to
    another, although its address may be used again; nothing is kept alive that can be referred to weakly.
    """

    def __init__(self) -> None:
        self._next = 0
        self._known: dict[int, tuple[Any, int]] = {}

    def of(self, value: Any) -> int:
        """Return the number of ``value``."""
        known = self._known.get(id(value))
        if known is not None and (known[0]() if isinstance(known[0], weakref.ref) else known[0]) is value:
            return known[1]
        self._next += 1
        key, forget = id(value), self._known.pop
        holder: Any
        try:
            holder = weakref.ref(value, lambda _: forget(key, None))
        except TypeError:
            holder = value
        self._known[key] = holder, self._next
        return self._next


class Description:
    """What an inventory holds, in words.

    Attributes:
        words: All of it.
        shape: The part on which the size and the course of a forward call hang: modules, the types and shapes
            of tensors, the configuration, autocast.
    """

    def __init__(self, inventory: Inventory, switches: Iterable[Any], serials: Serials) -> None:
        self._serials = serials
        self.words: Words = {}
        self.shape: Words = {}
        for container in inventory.containers:
            self._add(container, is_shaping=container.path in inventory.configuration)
        for path, module in inventory.modules.items():
            self.shape[path, "class"] = self.words[path, "class"] = self._identity(type(module))
        for place, tensor in inventory.tensors.items():
            self.shape[place] = self.words[place] = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        for name, value in zip(SWITCH_NAMES, switches, strict=True):
            self.words[_NUMERICS, name] = repr(value)
            if name in _SHAPING_SWITCHES:
                self.shape[_NUMERICS, name] = repr(value)

    def _add(self, container: Container, *, is_shaping: bool) -> None:
        path, values = container.path, container.values
        if container.role is Role.VALUE and _by_value(values) is not None:
            # Said where it is referred to: layers may share one list, or have one each.
            return
        if not isinstance(values, Mapping):
            self.words[path, "length"] = str(len(values))
        for key, value in container.items():
            words = self._of(value)
            self.words[path, key] = words
            if is_shaping:
                self.shape[path, key] = words

    def _of(self, value: Any) -> str:
        if (words := _by_value(value)) is not None:
            return words
        if isinstance(value, torch.Tensor | torch.nn.Module | PreTrainedConfig):
            # Each has words, or counters, of its own.
            return type(value).__name__
        if isinstance(value, dict | list | tuple | set | frozenset):
            return type(value).__name__
        return self._identity(value)

    def _identity(self, value: Any) -> str:
        if isinstance(value, types.MethodType):
            # Made anew whenever it is asked for.
            return f"{self._identity(value.__func__)} of {self._identity(value.__self__)}"
        if isinstance(value, types.FunctionType):
            return f"{self._named(value)} with {self._named(value.__code__)}"
        return self._named(value)

    def _named(self, value: Any) -> str:
        name = getattr(value, "__qualname__", None) or type(value).__qualname__
        return f"{name} number {self._serials.of(value)}"


def _by_value(value: Any, *, depth: int = 0) -> str | None:
    """Return ``value`` in words where plain values are all that it is made of, else None."""
    if is_plain(value):
        return f"{type(value).__name__} {value!r}"
    items: Iterable[Any]
    if isinstance(value, dict):
        items = chain.from_iterable(value.items())
    elif isinstance(value, set | frozenset):
        items = sorted(value, key=repr)
    elif isinstance(value, list | tuple):
        items = value
    else:
        return None
    if len(value) > _MOST_ITEMS or depth > _MOST_DEPTH:
        return None
    words = [_by_value(item, depth=depth + 1) for item in items]
    return None if None in words else f"{type(value).__name__} ({', '.join(map(str, words))})"


def differences(before: Words, after: Words, *, most: int = 3) -> str:
    """Return in words what has changed, the first few places of it."""
    changed = [place for place in {**before, **after} if before.get(place) != after.get(place)]
    named = []
    for path, key in changed[:most]:
        was, is_now = (words.get((path, key), "nothing") for words in (before, after))
        named.append(f"{path}.{key}: {was} -> {is_now}" if path else f"{key}: {was} -> {is_now}")
    rest = len(changed) - len(named)
    return "; ".join(named) + (f"; and {rest} more places" if rest else "")
