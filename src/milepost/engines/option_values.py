"""Truths and texts among a request's options; its numbers are those of ``milepost.counts``."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from milepost.errors import InvalidRequestError

__all__ = ["text_value", "texts", "truth"]


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
