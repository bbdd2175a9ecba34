"""An inventory in words: what is where, by value where a value tells all, by identity where it does not.

Two descriptions are equal exactly when the model computes alike as far as this can be seen; so a switch that
is set back is described as before. Weights are not in it: what became of them is told by their identity and
their counters, and a number that counts those changes (``ModelWatch``).

The digest of a description is a sum over its places, so that where a few places differ, only these are
described and added anew.
"""

import types
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import xxhash
from transformers import PreTrainedConfig

from milepost.engines.transformers.watch.inventory import Container, Inventory, Place, Role
from milepost.engines.transformers.watch.numeric_switches import SWITCH_NAMES
from milepost.engines.transformers.watch.plain import by_value

__all__ = ["Description", "Serials", "differences"]

# What a place holds, by the path of its container and its key.
Words = dict[Place, str]
_SHAPING_SWITCHES = ("default dtype", "autocast", "autocast on CPU")
_NUMERICS = "torch"
# What a module runs instead of its class's: put there by hand, or by accelerate, which calls the second.
_FORWARDS = frozenset({"forward", "_old_forward"})
_DIGEST_BYTES = 16


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
        shape: The part on which the size and the course of a forward call hang: modules and the functions
            that they run, the types and shapes of tensors, the configuration, autocast.
    """

    def __init__(self, inventory: Inventory, switches: Iterable[Any], serials: Serials) -> None:
        self._serials = serials
        self.words: Words = {}
        self.shape: Words = {}
        for container in inventory.containers:
            is_shaping = container.path in inventory.configuration or container.role is Role.CODE
            self._add(container, is_shaping=is_shaping)
        for path, module in inventory.modules.items():
            self.shape[path, "class"] = self.words[path, "class"] = self._identity(type(module))
        for place, tensor in inventory.tensors.items():
            self.shape[place] = self.words[place] = f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
        for name, value in zip(SWITCH_NAMES, switches, strict=True):
            self.words[_NUMERICS, name] = repr(value)
            if name in _SHAPING_SWITCHES:
                self.shape[_NUMERICS, name] = repr(value)
        self._sum, self._shape_sum = _sum(self.words), _sum(self.shape)

    def digests(self, content: int, *, instead: Words | None = None) -> tuple[bytes, bytes]:
        """Return a digest of all, with the number of the content, and one of the shape.

        Args:
            content: The number.
            instead: Words that some of the places have instead of theirs.
        """
        whole, shape = self._sums(instead or {})
        return _digest(whole + _sum({("content", ""): str(content)})), _digest(shape)

    def differing(self, values: Mapping[Place, Any], switches: Iterable[Any]) -> Words | None:
        """Return the words of those among plain ``values``, and of those switches, that are others by now;
        None where a place is unknown, or tells of its value elsewhere.
        """
        words = {place: by_value(value) for place, value in values.items()}
        words |= {(_NUMERICS, name): repr(value) for name, value in zip(SWITCH_NAMES, switches, strict=True)}
        if None in words.values() or not words.keys() <= self.words.keys():
            return None
        return {place: str(word) for place, word in words.items() if word != self.words[place]}

    def adopt(self, words: Words) -> None:
        """Take ``words`` for what their places hold."""
        self._sum, self._shape_sum = self._sums(words)
        self.words |= words
        self.shape |= {place: word for place, word in words.items() if place in self.shape}

    def _sums(self, words: Words) -> tuple[int, int]:
        """Return the sums over all and over the shape, with ``words`` instead of those at their places."""
        shape = {place: word for place, word in words.items() if place in self.shape}
        return (
            self._sum + _sum(words) - _sum({place: self.words[place] for place in words}),
            self._shape_sum + _sum(shape) - _sum({place: self.shape[place] for place in shape}),
        )

    def _add(self, container: Container, *, is_shaping: bool) -> None:
        path, values = container.path, container.values
        if container.role is Role.VALUE and by_value(values) is not None:
            # Said where it is referred to: layers may share one list, or have one each.
            return
        if isinstance(values, Sequence):
            self.words[path, "length"] = str(len(values))
        for key, value in container.items():
            words = self._of(value)
            self.words[path, key] = words
            if is_shaping or (container.role is Role.MODULE and key in _FORWARDS):
                self.shape[path, key] = words

    def _of(self, value: Any) -> str:
        if (words := by_value(value)) is not None:
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


def _sum(words: Words) -> int:
    return sum(xxhash.xxh3_128_intdigest(repr(item).encode(errors="surrogatepass")) for item in words.items())


def _digest(total: int) -> bytes:
    return (total % 256**_DIGEST_BYTES).to_bytes(_DIGEST_BYTES, "little")


def differences(before: Words, after: Words, *, most: int = 3) -> str:
    """Return in words what has changed, the first few places of it."""
    changed = [place for place in {**before, **after} if before.get(place) != after.get(place)]
    named = []
    for path, key in changed[:most]:
        was, is_now = (words.get((path, key), "nothing") for words in (before, after))
        named.append(f"{path}.{key}: {was} -> {is_now}" if path else f"{key}: {was} -> {is_now}")
    rest = len(changed) - len(named)
    return "; ".join(named) + (f"; and {rest} more places" if rest else "")
