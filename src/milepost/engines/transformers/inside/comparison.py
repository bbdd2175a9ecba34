"""How far two states of one model are apart, tensor by tensor."""

import math
from typing import Any

import torch

from milepost.engines.transformers.frames import CONSTANT_TENSORS
from milepost.engines.transformers.snapshot import StateSnapshot

__all__ = ["state_distances"]


def state_distances(one: StateSnapshot, reference: StateSnapshot) -> dict[str, float]:
    """Return by name, for each tensor of a state that is not empty, the norm of the difference over the norm
    of the reference; infinity where two have other shapes or types, and for what else differs, as counts and
    token ids do, which no rounding moves.

    Complexity: O(bytes of state).
    """
    found: dict[str, float] = {}
    _compare("state", one.frame, reference.frame, found, set())
    return found


def _compare(name: str, one: Any, reference: Any, found: dict[str, float], seen: set[int]) -> None:
    if type(one) is not type(reference):
        found[name] = math.inf
    elif isinstance(one, torch.Tensor):
        if one.shape != reference.shape or one.dtype != reference.dtype:
            found[name] = math.inf
        elif one.numel():
            found[name] = _relative(one, reference)
    elif isinstance(one, dict | list | tuple) or hasattr(one, "__dict__"):
        # Entered before what it holds, so that a cycle ends here.
        if id(one) not in seen:
            seen.add(id(one))
            mine, theirs = _parts(one), _parts(reference)
            if mine.keys() != theirs.keys():
                found[name] = math.inf
            for key in mine.keys() & theirs.keys() - CONSTANT_TENSORS:
                _compare(f"{name}.{key}", mine[key], theirs[key], found, seen)
    elif one != reference:
        found[name] = math.inf


def _parts(value: Any) -> dict[Any, Any]:
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return value if isinstance(value, dict) else vars(value)


def _relative(one: torch.Tensor, reference: torch.Tensor) -> float:
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, reference) else math.inf
    difference = (one.double() - reference.double()).norm()
    return float(difference / reference.double().norm().clamp(min=torch.finfo(torch.float32).tiny))
