"""Torch's own operators, which models call by name: another in the place of one changes what they compute.

Three ways lead there. A name of a namespace is set anew (``torch.rsqrt = mine``); a method of tensors is
(``torch.Tensor.__matmul__ = mine``, which the base class in C refuses); or a kernel is registered for an
operator that has one (``torch.library``), which no name shows but torch's list of registrations.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

__all__ = ["operators"]

_NAMESPACES = ("torch", "torch.linalg", "torch.fft", "torch.special", "torch._C._nn", "torch.nn.functional")
_CLASSES = (torch.Tensor, torch.nn.Parameter)
# What the first pickling of a tensor leaves in its class.
_CLASS_NOTES = frozenset({"__slotnames__"})
# Every operator that torch has of itself; what computes no values replaces no kernel.
_OWN, _SHAPES_ONLY = "aten", "Meta"


def operators() -> Iterator[tuple[str, Mapping[str, Any] | set[str], frozenset[str]]]:
    """Yield where operators are found: its name, the live container, and the keys that do not count."""
    for name in _NAMESPACES:
        space = vars(_resolve(name))
        # Submodules come when they are first asked for.
        yield name, space, frozenset(key for key, value in space.items() if not _can_compute(value))
    for kind in _CLASSES:
        yield f"class {kind.__qualname__}", vars(kind), _CLASS_NOTES
    # Torch has no public name for it.
    kernels: set[str] = getattr(torch.library, "_impls", set())
    yield "torch.library", kernels, frozenset(repr(name) for name in kernels if not _replaces(name))


def _resolve(name: str) -> Any:
    value: Any = torch
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def _can_compute(value: Any) -> bool:
    return callable(value) or isinstance(value, torch.dtype)


def _replaces(kernel: str) -> bool:
    namespace, _, rest = kernel.partition("/")
    return namespace == _OWN and not rest.endswith(f"/{_SHAPES_ONLY}")
