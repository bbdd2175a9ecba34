"""Names beside the ends of lines, moved apart where they would meet."""

from collections.abc import Sequence

__all__ = ["spread"]


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return places near ``wanted``, in their order, ``gap`` or more apart, in ``[low, high]`` if they fit.

    Labels that meet form a block around the mean of their places; blocks that meet join. So every label is
    moved as little as its neighbours allow (the least sum of squares). O(n**2) for n labels.

    >>> spread([1.0, 1.0, 5.0], gap=2.0, low=0.0, high=9.0)
    [0.0, 2.0, 5.0]
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[list[int]] = []
    for index in order:
        blocks.append([index])
        while len(blocks) > 1 and _start(blocks[-1], wanted, gap, low, high) < _end(
            blocks[-2], wanted, gap, low, high
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    places = [0.0] * len(wanted)
    for block in blocks:
        start = _start(block, wanted, gap, low, high)
        for rank, index in enumerate(block):
            places[index] = start + rank * gap
    return places


def _start(block: Sequence[int], wanted: Sequence[float], gap: float, low: float, high: float) -> float:
    mean = sum(wanted[index] - rank * gap for rank, index in enumerate(block)) / len(block)
    return max(low, min(mean, high - (len(block) - 1) * gap))


def _end(block: Sequence[int], wanted: Sequence[float], gap: float, low: float, high: float) -> float:
    return _start(block, wanted, gap, low, high) + len(block) * gap
