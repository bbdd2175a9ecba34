"""Names of policies where there is little room: broken, cut, or moved apart where they would meet."""

import re
from collections.abc import Sequence

__all__ = ["abridged", "broken", "spread"]


def broken(name: str, *, width: int) -> str:
    r"""Return ``name`` in lines of at most ``width`` characters, broken after commas and ``: ``.

    >>> broken("offsets:start=512,end=64,every=4096", width=24)
    'offsets:start=512,\nend=64,every=4096'
    """
    lines = [""]
    for part in re.split(r"(?<=,)|(?<=: )", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def abridged(name: str, *, width: int) -> str:
    """Return ``name``, its end cut off where it is longer than ``width``.

    >>> abridged("histogram-dp:count=8", width=16)
    'histogram-dp:co…'
    """
    return name if len(name) <= width else f"{name[: width - 1]}…"


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
