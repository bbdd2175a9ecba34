"""Values of a request's options: taken where their meaning is plain, else refused with rule and remedy.

A whole number may come as numpy's, as a tensor of one, or as 5.0; a truth is no number, nor is a text.
"""

import math
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from milepost.errors import InvalidRequestError

__all__ = ["finite_number", "text_value", "texts", "truth", "whole_number"]


def whole_number(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int in ``[least, most]``.

    Raises:
        InvalidRequestError: it is no whole number, or lies outside.
    """
    number = _index(value)
    if number is None or number < least or (most is not None and number > most):
        rule = f"at least {least:,}" if most is None else f"{least:,} to {most:,}"
        raise InvalidRequestError(f"{name}={value!r}; give a whole number, {rule}")
    return number


def finite_number(name: str, value: Any, *, rule: str, least: float, most: float = math.inf) -> float:
    """Return ``value`` as a float in ``[least, most]``; ``rule`` says that range in words.

    Raises:
        InvalidRequestError: it is no number, or lies outside.
    """
    number = None if isinstance(value, bool | np.bool_ | str | bytes) or not _is_scalar(value) else value
    try:
        number = math.nan if number is None else float(number)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or not least <= number <= most:
        raise InvalidRequestError(f"{name}={value!r}; give a number, {rule}")
    return number


def truth(name: str, value: Any) -> bool:
    """Return ``value`` as a bool.

    Raises:
        InvalidRequestError: it is none.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidRequestError(f"{name}={value!r}; give True or False")
    return bool(value)


def text_value(name: str, value: Any) -> str:
    """Return ``value`` if it is a text.

    Raises:
        InvalidRequestError: it is none.
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name}={value!r}; give a text")
    return value


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Return one text or several as a tuple.

    Raises:
        InvalidRequestError: it is neither.
    """
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise InvalidRequestError(f"{name}={value!r}; give a text or a list of texts")
    return (value,) if isinstance(value, str) else tuple(value)


def _index(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_ | str | bytes) or not _is_scalar(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None


def _is_scalar(value: Any) -> bool:
    return getattr(value, "ndim", 0) == 0
