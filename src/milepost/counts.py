"""Numbers as callers give them: what is plainly meant is taken, anything else is refused by name.

A count may come as Python's or numpy's integer, or as a float without a fraction (``8e9`` bytes). A truth
value, a text, a NaN or an infinity is a mistake somewhere before.
"""

import math
import sys
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
    most: int | None = None,
    error: type[ConfigurationError] | type[InvalidRequestError] = ConfigurationError,
) -> int:
    """Return ``value`` as an ``int`` of at least ``least`` and at most ``most``.

    Raises:
        ConfigurationError: it is no whole number, or outside that range; or ``error`` in its place.

    >>> as_count("grid", 64.0), as_count("grid", 64, least=1)
    (64, 64)
    """
    number = value if type(value) is int else _whole(value)
    if number is None or number < least or (most is not None and number > most):
        rule = f"at least {least}" if most is None else f"{least} to {most}"
        raise error(f"{name}={value!r}; give a whole number of {rule}")
    return number


def as_number(
    name: str,
    value: Any,
    *,
    least: float = 0.0,
    most: float = sys.float_info.max,
    rule: str | None = None,
    error: type[ConfigurationError] | type[InvalidRequestError] = ConfigurationError,
) -> float:
    """Return ``value`` as a finite ``float`` of at least ``least`` and at most ``most``.

    Args:
        name: Of the option.
        value: As the caller gave it.
        least: The least that is allowed.
        most: The most that is allowed.
        rule: That range in words.
        error: What is raised.

    Raises:
        ConfigurationError: it is no number, or outside that range; or ``error`` in its place.

    >>> as_number("per_pair", 3)
    3.0
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise error(f"{name}={value!r}; give a finite number of {rule or f'at least {least:g}'}")
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
