"""The row of two ways that took turns: the median of the ratios within a turn, and how far they lie apart."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.printing import Row

__all__ = ["ratio_row"]


def ratio_row(
    name: str,
    seconds: Sequence[float],
    base: Sequence[float],
    *,
    target: float | None = None,
    note: str = "",
    numbers: Mapping[str, float | int | str] | None = None,
) -> Row:
    """Return a row of one way against another.

    Args:
        name: Of the row, ``one way / the other``.
        seconds: Of one way, a number a turn, without turns that warm up.
        base: Of the other way, in the same turns.
        target: The most that the ratio may be; by default it is only reported.
        note: Printed behind the ratios.
        numbers: More of them, for JSON, beside ``ratio``, ``seconds`` and ``base_seconds`` (medians).

    Raises:
        ValueError: If the ways did not take equally many turns.
    """
    ratios = [one / other for one, other in zip(seconds, base, strict=True)]
    ratio = statistics.median(ratios)
    return Row(
        name=name,
        measured=f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}){note}",
        target="reported" if target is None else f"<= {target:.3g}",
        reached=target is None or ratio <= target,
        numbers={
            "ratio": ratio,
            "seconds": statistics.median(seconds),
            "base_seconds": statistics.median(base),
            **(numbers or {}),
        },
    )
