"""Which submodules call a known recurrence, and how they are led to call it in pieces for a while."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from milepost.engines.transformers.inside.recurrences import RECURRENCES, in_pieces
from milepost.engines.transformers.patch import ForwardPatch
from milepost.engines.transformers.rebinding import with_globals

__all__ = ["recurrences_in_pieces"]


@contextmanager
def recurrences_in_pieces(model: torch.nn.Module) -> Iterator[None]:
    """While open, every submodule of ``model`` that calls a known recurrence calls it in pieces, where a
    recording asks for it. Those that are patched already see to it themselves (``families``).
    """
    applied = [patch for patch in _patches(model) if patch.apply()]
    try:
        yield
    finally:
        for patch in applied:
            patch.undo()


def _patches(model: torch.nn.Module) -> Iterator[ForwardPatch]:
    for module in model.modules():
        if _known_in(type(module).forward):
            yield ForwardPatch(module, _forward)


def _forward(upstream: Callable[..., Any], mixer: torch.nn.Module, *args: Any, **options: Any) -> Any:
    # What the instance has instead of its class's: a kernel for all of it calls nothing that is known here.
    function: Any = getattr(upstream, "__func__", None)
    names = frozenset() if function is None else _known_in(function)
    if not names:
        return upstream(*args, **options)
    # As they are by now: what was replaced since the model was opened is called in pieces too.
    known = inspect.unwrap(function).__globals__
    led = {name: in_pieces(known[name], RECURRENCES[name]) for name in names}
    return with_globals(function, **led)(mixer, *args, **options)


# Asked of every submodule in every call that is recorded.
@lru_cache(maxsize=1024)
def _known_in(function: Any) -> frozenset[str]:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return frozenset() if code is None else frozenset(RECURRENCES.keys() & set(code.co_names))
