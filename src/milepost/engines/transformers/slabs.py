"""Memory that is dear to get, cut into pieces: a few large slabs, and first fit within them.

Pinning memory takes milliseconds and a call of the driver each time, so it is done for slabs, which are used
again and again. Free neighbours are joined. All slabs together stay within a limit: what does not fit is
refused. An empty slab is kept for the next piece, and given up where one of another size needs its room.
Sizes are powers of two, since torch pins no less than the next one.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

__all__ = ["Region", "Slabs"]

# Where a piece may begin: more than any number needs, and what copies like best.
_ALIGNMENT = 256
# A slab is made for no fewer pieces than this, where there is room: what is left at its end is no good to
# others of their size, and is half of it where one fits and not two.
_LEAST_PIECES = 4


@dataclass(eq=False, slots=True)
class _Slab:
    memory: torch.Tensor
    # Free stretches [start, end), ascending; no two touch.
    free: list[tuple[int, int]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self.free == [(0, self.memory.numel())]


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """A piece of a slab.

    Attributes:
        memory: Its bytes, ``uint8[num_bytes]``, aligned.
    """

    memory: torch.Tensor
    _slab: _Slab
    _start: int
    _end: int


class Slabs:
    """See the module.

    Args:
        new_slab: Returns memory of so many bytes, ``uint8[num_bytes]``.
        limit_bytes: What all slabs take at most.
        slab_bytes: What one takes, a power of two, unless pieces are large or less is left.

    Attributes:
        held_bytes: What all take now.
    """

    def __init__(
        self, new_slab: Callable[[int], torch.Tensor], *, limit_bytes: int, slab_bytes: int = 64 << 20
    ) -> None:
        self.held_bytes = 0
        self._new_slab = new_slab
        self._limit_bytes = limit_bytes
        self._slab_bytes = slab_bytes
        self._slabs: list[_Slab] = []

    def take(self, num_bytes: int) -> Region | None:
        """Return a piece of ``num_bytes``, at least 1; None where the limit leaves no room.

        Complexity: O(free stretches).
        """
        size = -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        for slab in self._slabs:
            for index, (start, end) in enumerate(slab.free):
                if end - start >= size:
                    return _cut(slab, index, num_bytes, size)
        made = self._grow(size)
        return None if made is None else _cut(made, 0, num_bytes, size)

    def give_back(self, region: Region) -> None:
        """Take ``region`` back; it is not used again. O(free stretches of its slab)."""
        slab, start, end = region._slab, region._start, region._end
        before = next((each for each in slab.free if each[1] == start), None)
        after = next((each for each in slab.free if each[0] == end), None)
        for neighbour in (before, after):
            if neighbour is not None:
                slab.free.remove(neighbour)
        joined = (start if before is None else before[0], end if after is None else after[1])
        insort(slab.free, joined)

    def close(self) -> None:
        """Give up the slabs that are empty."""
        self._slabs = [slab for slab in self._slabs if not slab.is_empty]
        self.held_bytes = sum(slab.memory.numel() for slab in self._slabs)

    def check(self) -> None:
        """Raise ``AssertionError`` where free stretches overlap, touch, or leave their slab."""
        assert self.held_bytes == sum(slab.memory.numel() for slab in self._slabs) <= self._limit_bytes
        for slab in self._slabs:
            ends = [-1, *(end for _, end in slab.free)]
            starts = [*(start for start, _ in slab.free), slab.memory.numel() + 1]
            assert all(end < start for end, start in zip(ends, starts, strict=True))
            assert all(start < end for start, end in slab.free)

    def _grow(self, least_bytes: int) -> _Slab | None:
        """Return a new slab that a piece of ``least_bytes`` fits into; None where there is no room."""
        size = max(1 << (_LEAST_PIECES * least_bytes - 1).bit_length(), self._slab_bytes)
        if self.held_bytes + size > self._limit_bytes:
            self.close()
            while size > self._limit_bytes - self.held_bytes:
                size //= 2
        if size < least_bytes:
            return None
        slab = _Slab(self._new_slab(size), [(0, size)])
        self._slabs.append(slab)
        self.held_bytes += size
        return slab


def _cut(slab: _Slab, index: int, num_bytes: int, size: int) -> Region:
    """Return the beginning of a free stretch of ``slab``."""
    start, end = slab.free.pop(index)
    if start + size < end:
        slab.free.insert(index, (start + size, end))
    return Region(slab.memory.narrow(0, start, num_bytes), slab, start, start + size)
