"""Values that tell all of themselves: numbers, names, types, and what is made of nothing else."""

import enum
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch

__all__ = ["PLAIN", "by_value", "is_flat", "is_plain"]

PLAIN = (
    type(None), bool, int, float, complex, str, bytes, enum.Enum, torch.dtype, torch.device, torch.layout,
    torch.memory_format, range, slice,
)  # fmt: skip
_COLLECTIONS = (dict, list, tuple, set, frozenset)
# A longer or deeper container has words of its own.
_MOST_ITEMS, _MOST_DEPTH = 256, 3


def is_plain(value: Any) -> bool:
    """Return whether ``value`` is told by its value alone."""
    return isinstance(value, PLAIN)


def is_flat(value: Any) -> bool:
    """Return whether ``value`` is a collection of plain values, short enough to be told by them."""
    if not isinstance(value, _COLLECTIONS) or len(value) > _MOST_ITEMS:
        return False
    if not all(map(is_plain, value)):
        return False
    return not isinstance(value, dict) or all(map(is_plain, value.values()))


def by_value(value: Any, *, depth: int = 0) -> str | None:
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
    words = [by_value(item, depth=depth + 1) for item in items]
    return None if None in words else f"{type(value).__name__} ({', '.join(map(str, words))})"
