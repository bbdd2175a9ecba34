"""Numbers as callers give them: what is plainly meant is taken, anything else is refused by name.

A count may come as Python's or numpy's integer, or as a float without a fraction (``8e9`` bytes). A truth
value, a text, a NaN or an infinity is a mistake somewhere before.
"""

import math
from numbers import Real
from operator import index
from typing import Any

from milepost.errors import ConfigurationError, InvalidRequestError

__all__ = ["as_count", "as_number"]


def as_count(
    name: str,
    value: Any,
    *,
    least: int = 0,
    error: type[ConfigurationError] | type[InvalidRequestError] = ConfigurationError,
) -> int:
    """Return ``value`` as an ``int`` of at least ``least``.

    Raises:
        ConfigurationError: it is no whole number, or less; or ``error`` in its place.

    >>> as_count("grid", 64.0), as_count("grid", 64, least=1)
    (64, 64)
    """
    if type(value) is int and value >= least:
        return value
    number = _whole(value)
    if number is None or number < least:
        raise error(f"{name}={value!r}; give a whole number of at least {least}")
    return number


def as_number(name: str, value: Any, *, least: float = 0.0) -> float:
    """Return ``value`` as a finite ``float`` of at least ``least``.

    Raises:
        ConfigurationError: it is no number, or outside that range.

    >>> as_number("per_pair", 3)
    3.0
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not least <= value < math.inf:
        raise ConfigurationError(f"{name}={value!r}; give a finite number of at least {least:g}")
    return float(value)


def _whole(value: Any) -> int | None:
    """Return what whole number is meant, None where none is."""
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except TypeError:
        is_finite = isinstance(value, Real) and math.isfinite(value)
        return math.floor(value) if is_finite and value == math.floor(value) else None
