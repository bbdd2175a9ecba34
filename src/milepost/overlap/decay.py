"""Decayed counts of several observers as one: how much of all that they saw one observer would remember."""

import math
from collections.abc import Sequence

__all__ = ["merged_weight"]


def merged_weight(weights: Sequence[float], *, decay: float) -> float:
    """Return what a count is that grows by 1 and fades by ``decay`` a step, after the steps of several such
    counts. Each has seen n steps where it is ``(1 - decay**n) / (1 - decay)``; together they have seen all.

    >>> merged_weight([1.0, 1.0], decay=0.5)  # a step each
    1.5
    >>> round(merged_weight([100.0, 100.0], decay=0.99), 6)  # no more than one observer remembers
    100.0
    """
    forgotten = math.prod(max(0.0, 1.0 - (1.0 - decay) * weight) for weight in weights)
    return (1.0 - forgotten) / (1.0 - decay)
