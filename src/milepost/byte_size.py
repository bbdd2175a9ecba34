"""Amounts of memory as people write them: ``4GiB``, ``512 MB``, ``1e9``."""

import re
from math import isfinite

from milepost.counts import as_count
from milepost.errors import ConfigurationError

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = {"": 1, "b": 1} | {
    prefix + suffix: base**power
    for base, suffix in ((1000, "b"), (1024, "ib"))
    for power, prefix in enumerate("kmgt", start=1)
}
_PATTERN = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e\+?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(amount: str | float) -> int:
    """Return the number of bytes that ``amount`` names: a text, or a number of bytes.

    Raises:
        ConfigurationError: it is neither, negative or no whole number of bytes.

    >>> parse_bytes("1.5 GiB"), parse_bytes("200MB"), parse_bytes(4096), parse_bytes(8e9)
    (1610612736, 200000000, 4096, 8000000000)
    """
    if not isinstance(amount, str):
        return as_count("bytes", amount)
    match = _PATTERN.fullmatch(amount)
    unit = match[2].lower() if match else ""
    if match is None or unit not in _UNITS or not isfinite(float(match[1])):
        raise ConfigurationError(
            f"{amount!r} is not an amount of memory; write 4GiB, 512MB or a number of bytes"
        )
    # Digits alone stay whole numbers: a float would round the large ones.
    number = int(match[1]) if match[1].isdecimal() else float(match[1])
    return int(number * _UNITS[unit])


def format_bytes(num_bytes: float) -> str:
    """Return ``num_bytes`` with three significant digits and a decimal unit.

    >>> format_bytes(18_900_000), format_bytes(512)
    ('18.9 MB', '512 B')
    """
    for unit in ("B", "kB", "MB", "GB"):
        # From 999.5 on, three digits would round up to 1e+03.
        if abs(num_bytes) < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB" if abs(num_bytes) < 999.5 else f"{num_bytes:,.0f} TB"
