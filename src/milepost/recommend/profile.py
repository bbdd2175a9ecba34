"""Where requests diverge from earlier prompts, as far as fixed distances can say it.

An engine whose states sit at fixed distances from a prompt's start or end (TensorRT-LLM) has to be told
which. Of every request that shares something, the profile keeps its overlap depth and the length of the
prompt that it shares it with. A state ``s`` tokens after the start serves it where ``s <= depth``, one
``e`` tokens before that prompt's end where ``length - e <= depth``; the deepest that serves it is what it
saves. Sets are grown greedily, each time by the distance that saves most beyond those chosen: the saving of
a set is submodular, so greedy is within 1 - 1/e of the best set of that size. Memory is left to the replay,
which tries every size.
"""

from array import array
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from milepost.placement import PlacementRequest

__all__ = ["Offsets", "ProfileBuilder", "TrafficProfile"]

IntArray = npt.NDArray[np.int64]

# Shorter overlaps are templates that every prompt begins with; no state is worth them.
_LEAST_OVERLAP_TOKENS = 64
# Distances that are tried, of either kind: quantiles of those seen, rounded to the grid.
_NUM_TRIED = 48


@dataclass(frozen=True, slots=True)
class Offsets:
    """Distances from the start and from the end, each ascending."""

    from_start: tuple[int, ...] = ()
    from_end: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class TrafficProfile:
    """Lengths and overlaps of a trace.

    Attributes:
        num_tokens: Length of each prompt, shape ``[requests]``.
        overlap_depths: Of each request that shares something, how much; shape ``[sharings]``.
        shared_lengths: Length of the prompt that it shares it with, shape ``[sharings]``.
        has_boundaries: Whether the log says where messages end.
    """

    num_tokens: IntArray
    overlap_depths: IntArray
    shared_lengths: IntArray
    has_boundaries: bool = False

    @property
    def longest_tokens(self) -> int:
        """The longest prompt."""
        return int(self.num_tokens.max())

    @property
    def mean_tokens(self) -> float:
        """The mean prompt."""
        return float(self.num_tokens.mean())

    def best_offsets(self, *, grid: int, largest: int) -> list[Offsets]:
        """Return the best set of one distance, of two, and so on, while one more saves anything.

        Args:
            grid: Distances are multiples of this many tokens.
            largest: Most distances in a set.

        Complexity: O(largest * distances tried * sharings).
        """
        depths, lengths = self.overlap_depths, self.shared_lengths
        if depths.size == 0:
            return []
        from_end = _tried(-(-(lengths - depths) // grid) * grid)
        from_start = _tried(depths // grid * grid)
        positions = np.concatenate(
            (
                np.broadcast_to(from_start[from_start > 0, None], (int((from_start > 0).sum()), depths.size)),
                (lengths - from_end[:, None]) // grid * grid,
            )
        )
        savings = np.where(positions <= depths, np.maximum(positions, 0), 0)
        distances = [("start", int(s)) for s in from_start if s > 0] + [("end", int(e)) for e in from_end]
        chosen: list[tuple[str, int]] = []
        saved = np.zeros(depths.size, np.int64)
        sets = []
        while len(chosen) < largest:
            totals = np.maximum(savings, saved).sum(1)
            best = int(totals.argmax())
            if totals[best] <= saved.sum():
                break
            chosen.append(distances[best])
            saved = np.maximum(savings[best], saved)
            sets.append(
                Offsets(
                    tuple(sorted(at for kind, at in chosen if kind == "start")),
                    tuple(sorted(at for kind, at in chosen if kind == "end")),
                )
            )
        return sets


@final
class ProfileBuilder:
    """Collects a profile while requests go by, 8 bytes a number."""

    def __init__(self) -> None:
        self._num_tokens = array("q")
        self._depths = array("q")
        self._lengths = array("q")
        self._has_boundaries = False

    def add(self, request: PlacementRequest) -> None:
        """Count one request, described as any policy is told of it."""
        self._num_tokens.append(request.num_tokens)
        self._has_boundaries |= bool(request.breakpoints)
        depth = request.overlap_depth
        if depth >= _LEAST_OVERLAP_TOKENS and request.matched_num_tokens is not None:
            self._depths.append(min(depth, request.num_tokens - 1))
            self._lengths.append(request.matched_num_tokens)

    def build(self) -> TrafficProfile:
        """Return what was collected."""
        lengths, depths, shared = (
            np.array(each, np.int64) for each in (self._num_tokens, self._depths, self._lengths)
        )
        return TrafficProfile(lengths, depths, shared, self._has_boundaries)


def _tried(distances: IntArray) -> IntArray:
    """Return at most ``_NUM_TRIED`` of ``distances``, ascending: their quantiles."""
    quantiles = np.quantile(distances, np.linspace(0.0, 1.0, _NUM_TRIED), method="nearest")
    return np.unique(quantiles)
