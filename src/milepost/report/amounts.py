"""Amounts as people read them: ``100k`` tokens, ``40 GiB``, ``31 ms``, ``1.2 TFLOP``, ``79.1 %``."""

from milepost.byte_size import format_bytes
from milepost.errors import ConfigurationError

__all__ = ["count", "memory", "memory_in_words", "percent", "prefill_cost", "short"]

_BINARY_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"))
_NEARLY = 2e-3
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(amount: float, *, digits: int = 3) -> str:
    """Return ``amount`` with an SI prefix and at most ``digits`` significant digits.

    >>> short(100_000), short(1_048_576), short(999.9), short(999_999), short(12), short(0)
    ('100k', '1.05M', '1k', '1M', '12', '0')
    """
    return _scaled(amount, digits, between="")


def count(amount: float) -> str:
    """Return a whole number with thousands apart.

    >>> count(4502949)
    '4,502,949'
    """
    return f"{round(amount):,}"


def percent(share: float, *, digits: int = 1) -> str:
    r"""Return a share in percent; no line is broken before the sign.

    >>> percent(0.79135), percent(1.0, digits=0)
    ('79.1\xa0%', '100\xa0%')
    """
    return f"{100 * share:.{digits}f}\u00a0%"


def memory(kv_tokens: float, kv_bytes_per_token: int | None) -> str:
    """Return an amount of memory: in bytes where a model says how many, else in tokens of KV.

    Capacities are whole tokens of KV, so one given as 40 GiB is a little less, and still called that.

    >>> memory(200_000, None), memory(200_000, 16_384), memory(2_621_439, 16_384)
    ('200k', '3.28 GB', '40 GiB')
    """
    if not kv_bytes_per_token:
        return short(kv_tokens)
    num_bytes = kv_tokens * kv_bytes_per_token
    for unit, name in _BINARY_UNITS:
        whole = round(num_bytes / unit)
        if 0 < whole < 1024 and abs(num_bytes - whole * unit) < _NEARLY * unit:
            return f"{whole} {name}"
    return format_bytes(num_bytes)


def memory_in_words(kv_tokens: float, kv_bytes_per_token: int | None) -> str:
    """Return an amount of memory with its unit.

    >>> memory_in_words(200_000, None), memory_in_words(200_000, 16_384)
    ('200k tokens of KV', '3.28 GB')
    """
    told = memory(kv_tokens, kv_bytes_per_token)
    return told if kv_bytes_per_token else f"{told} tokens of KV"


def prefill_cost(amount: float, unit: str) -> str:
    """Return the cost of a prefill in its unit.

    >>> prefill_cost(0.0312, "seconds"), prefill_cost(2.5, "seconds"), prefill_cost(1.25e12, "flops")
    ('31.2 ms', '2.5 s', '1.25 TFLOP')
    >>> prefill_cost(7200, "tokens")
    '7.2k tokens'
    """
    if unit == "seconds":
        if 0 < amount < 1e-3:
            return f"{_significant(amount * 1e6, 3)} µs"
        return f"{_significant(amount * 1e3, 3)} ms" if amount < 0.9995 else f"{_significant(amount, 3)} s"
    if unit == "flops":
        return f"{_scaled(amount, 3, between=' ')}FLOP" if amount >= 999.5 else f"{amount:.0f} FLOP"
    if unit == "tokens":
        whole = amount if amount >= 1000 else round(amount)
        return f"{short(whole)} token{'' if whole == 1 else 's'}"
    raise ConfigurationError(f"unit={unit!r}; a cost is in tokens, flops or seconds")


def _scaled(amount: float, digits: int, *, between: str) -> str:
    magnitude = abs(amount)
    for factor, prefix in reversed(_PREFIXES):
        # Where rounding would carry into the next prefix, that prefix reads better.
        if factor * (1 - 0.5 * 10.0**-digits) <= magnitude < 1000 * factor * (1 - 0.5 * 10.0**-digits):
            return f"{_significant(amount / factor, digits)}{between}{prefix}"
    if magnitude >= _PREFIXES[0][0]:
        return f"{amount:.{digits - 1}e}"
    return _significant(amount, digits)


def _significant(amount: float, digits: int) -> str:
    """Return up to ``digits`` significant digits, never in exponents, no zeros at the end of a fraction."""
    if amount == 0:
        return "0"
    rounded = float(f"{amount:.{digits - 1}e}")
    text = f"{rounded:.{max(0, digits)}f}" if abs(rounded) >= 1 else f"{rounded:.{digits + 6}f}"
    return text.rstrip("0").rstrip(".")
