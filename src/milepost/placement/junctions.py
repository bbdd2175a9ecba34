"""Placements that serving engines use today: the prompt's tail, and junctions where prompts have diverged."""

from dataclasses import dataclass
from typing import final

from milepost.placement.admissible import admissible, deepest_reusable
from milepost.placement.base import Placement, PlacementPolicy, PlacementRequest

__all__ = ["Junction", "PromptTail", "TailAndJunction", "junction_depth"]


def junction_depth(request: PlacementRequest) -> int | None:
    """Return where this prompt diverges from an earlier one, None where it shares nothing or all."""
    return request.overlap_depth if 0 < request.overlap_depth < request.num_tokens else None


@final
@dataclass(frozen=True, slots=True)
class PromptTail(PlacementPolicy):
    """The deepest position from which the same prompt, asked again or extended, can resume."""

    def place(self, request: PlacementRequest) -> Placement:
        """Return the tail, unless it is not beyond the resume position. O(1)."""
        return admissible(request, (deepest_reusable(request),))


@final
@dataclass(frozen=True, slots=True)
class Junction(PlacementPolicy):
    """The place where this prompt diverges from an earlier one: its overlap depth.

    Seen at the second prompt through it, and of use to the third.
    """

    def place(self, request: PlacementRequest) -> Placement:
        """Return the overlap depth, unless it is not beyond the resume position. O(1)."""
        junction = junction_depth(request)
        return admissible(request, () if junction is None else (junction,))


@final
@dataclass(frozen=True, slots=True)
class TailAndJunction(PlacementPolicy):
    """Tail and junction together: stock vLLM, and close to Marconi and SGLang.

    With one checkpoint allowed, the tail is kept.
    """

    def place(self, request: PlacementRequest) -> Placement:
        """Return up to two positions. O(1)."""
        junction = junction_depth(request)
        tail = deepest_reusable(request)
        return admissible(request, (tail,) if junction is None else (junction, tail))
