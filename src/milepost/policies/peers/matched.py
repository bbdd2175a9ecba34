"""Junctions as engines find them: where the KV match is longer than the state match."""

from dataclasses import dataclass
from typing import final

from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.admissible import admissible, deepest_reusable

__all__ = ["TailAndMatchedJunction", "matched_junction"]


def matched_junction(request: PlacementRequest) -> int | None:
    """Return how far the stored KV of earlier prompts goes along with this one, None where that is no further
    than the state it resumes from, or up to the end. O(1).

    An engine knows of earlier prompts only what it has in memory: where the KV is gone, so is the junction.
    """
    matched = request.resident_kv_tokens
    return matched if request.resume_position < matched < request.num_tokens else None


@final
@dataclass(frozen=True, slots=True)
class TailAndMatchedJunction(PlacementPolicy):
    """The prompt's tail, and the junction where the engine can see it. With one allowed, the tail is kept."""

    def place(self, request: PlacementRequest) -> Placement:
        """Return up to two positions. O(1)."""
        junction, tail = matched_junction(request), deepest_reusable(request)
        return admissible(request, (tail,) if junction is None else (junction, tail))
