"""Placements that look at nothing but the prompt's length: the baselines.

Each sees the whole prompt and drops what lies at or before the resume position, so that a prompt that grows
turn by turn is covered as if it had been placed at once.
"""

import math
from dataclasses import dataclass
from typing import final

from milepost.counts import as_count
from milepost.placement.admissible import admissible, deepest_reusable
from milepost.placement.base import Placement, PlacementPolicy, PlacementRequest

__all__ = ["Balanced", "Dense", "Dyadic", "NoCheckpoints", "Periodic", "SquareRoot", "balanced_positions"]


@final
@dataclass(frozen=True, slots=True)
class NoCheckpoints(PlacementPolicy):
    """Keep nothing: what an engine without state reuse does."""

    def place(self, request: PlacementRequest) -> Placement:
        """Return the empty placement. O(1)."""
        return Placement()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dense(PlacementPolicy):
    """Every multiple of ``every`` tokens: block caching, where each block boundary carries a state.

    Nothing else: the rest of the prompt after its last full block is recomputed.
    """

    every: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", as_count("every", self.every, least=1))

    def place(self, request: PlacementRequest) -> Placement:
        """Return all block boundaries beyond the resume position. O(num_tokens / every)."""
        return admissible(request, range(self.every, request.num_tokens + 1, self.every))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic(PlacementPolicy):
    """Every multiple of ``every`` tokens, and the deepest position that the same prompt can resume from.

    TensorRT-LLM's ``periodic_snapshot_interval`` with its snapshot of the last full block: :class:`Dense`
    plus :class:`~milepost.placement.junctions.PromptTail`. The tail is what makes a long interval usable.
    """

    every: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", as_count("every", self.every, least=1))

    def place(self, request: PlacementRequest) -> Placement:
        """Return the multiples and the tail. O(num_tokens / every)."""
        periodic = range(self.every, request.num_tokens + 1, self.every)
        return admissible(request, (*periodic, deepest_reusable(request)))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced(PlacementPolicy):
    """``count`` positions that cut the prompt into ``count + 1`` equal parts (all of them if it is short).

    The best placement where every overlap depth is equally likely, and a baseline of the paper, whose code
    rounds a part down before it multiplies: its cuts lie up to ``count`` tokens before these. With fewer than
    ``count`` allowed by ``max_checkpoints``, the cut is into fewer equal parts, rather than losing one end.
    """

    count: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", as_count("count", self.count, least=1))

    def place(self, request: PlacementRequest) -> Placement:
        """Return the cuts beyond the resume position. O(count)."""
        count = min(self.count, request.max_checkpoints)
        return admissible(request, balanced_positions(request.num_tokens, grid=request.grid, count=count))


@final
@dataclass(frozen=True, slots=True)
class SquareRoot(PlacementPolicy):
    """Every multiple of the square root of the prompt's length, rounded down, floored to the grid.

    The paper's baseline, as its reference code runs it (arXiv 2605.05219): the number of checkpoints and the
    worst-case recomputation both grow as the square root of the prompt. Up to ``grid ** 2`` tokens that is
    every grid position. With fewer allowed by ``max_checkpoints``, the cut is as in :class:`Balanced`.
    """

    def place(self, request: PlacementRequest) -> Placement:
        """Return the multiples beyond the resume position. O(sqrt(num_tokens))."""
        num_tokens, grid = request.num_tokens, request.grid
        every = max(1, math.isqrt(num_tokens))
        # Spacings below a grid step share positions; the first may floor to 0, which needs no checkpoint.
        wished = {position // grid * grid for position in range(every, num_tokens + 1, every)} - {0}
        if len(wished) > request.max_checkpoints:
            wished = set(balanced_positions(num_tokens, grid=grid, count=request.max_checkpoints))
        return admissible(request, wished)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dyadic(PlacementPolicy):
    """The powers of two from ``start`` on: 1024, 2048, 4096 and so on up to the prompt's end.

    The paper's logarithmic baseline (its runs use ``start=768``). Whatever the overlap depth beyond
    ``start``, less than half of it is recomputed, with a number of checkpoints that hardly grows. It is
    dense towards the prompt's start; for density towards the end, use offsets from the end.
    """

    start: int = 768

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", as_count("start", self.start, least=1))

    def place(self, request: PlacementRequest) -> Placement:
        """Return the powers of two beyond the resume position. O(log num_tokens)."""
        exponents = range((self.start - 1).bit_length(), request.num_tokens.bit_length())
        return admissible(request, (1 << exponent for exponent in exponents))


def balanced_positions(num_tokens: int, *, grid: int, count: int) -> tuple[int, ...]:
    """Return ``count`` positions on the grid, in ``(0, num_tokens]``, that split a prompt equally. O(count).

    >>> balanced_positions(1000, grid=64, count=3)
    (192, 448, 704)
    >>> balanced_positions(200, grid=64, count=8)
    (64, 128, 192)
    """
    slots = num_tokens // grid
    if count >= slots:
        return tuple(grid * slot for slot in range(1, slots + 1))
    # With count + 1 <= slots a part is at least one grid step, so no two cuts share a slot and none is at 0.
    return tuple(grid * (cut * num_tokens // ((count + 1) * grid)) for cut in range(1, count + 1))
