"""Training mode, in which a prompt has other states each time, is refused before anything is stored."""

from collections.abc import Iterator
from types import FunctionType

import torch

from milepost.errors import ConfigurationError

__all__ = ["refuse_training"]


def refuse_training(model: torch.nn.Module, *, is_known: frozenset[int]) -> None:
    """Raise where a module is in training mode.

    One that was put in since the last look is born in it, and most (layers of adapters, new embeddings)
    compute alike in either mode; such a one counts only if its code asks for the mode.

    Args:
        model: The model.
        is_known: The ``id`` of every module that was there at the last look, in evaluation mode.

    Raises:
        ConfigurationError: The message names a module and the remedy.
    """
    training = [
        name
        for name, module in model.named_modules()
        if module.training and (id(module) in is_known or _can_tell(module))
    ]
    if training:
        raise ConfigurationError(
            f"{len(training)} modules, such as {training[-1] or 'the model itself'}, are in training mode, "
            "where the same prompt has other states each time; call model.eval() before asking"
        )


def _can_tell(module: torch.nn.Module) -> bool:
    # Dropout that drops nothing.
    return getattr(module, "p", None) != 0 and _asks_for_the_mode(type(module))


def _asks_for_the_mode(kind: type) -> bool:
    return any("training" in function.__code__.co_names for function in _functions(kind))


def _functions(kind: type) -> Iterator[FunctionType]:
    for base in kind.__mro__:
        if base is not torch.nn.Module:
            yield from (value for value in vars(base).values() if isinstance(value, FunctionType))
