"""Partings at known boundaries: where messages end, or where the client asked for a cache point."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, final

from milepost.overlap.decay import merged_weight

__all__ = ["BoundaryModel"]

# Boundaries told apart, counted from the prompt's end; earlier ones share the last place.
_MOST_BOUNDARIES = 8
# Each place starts as if it had explained a tenth of a sharing.
_PRIOR = 0.1


@final
class BoundaryModel:
    """Learns how often a request diverges from a prompt at its last boundary, its last but one, and so on.

    A divergence in the first tokens after a boundary counts as one there, in proportion to how much better
    the boundary explains it than ``expected``, what was predicted without.

    Args:
        decay: What one sharing leaves of the weight of all before it.
        width: A divergence less than this many tokens after a boundary is at it.
    """

    __slots__ = ("_decay", "_explained", "_seen", "width")

    def __init__(self, *, decay: float = 0.99, width: int = 64) -> None:
        self._decay = decay
        self.width = width
        self._explained = [0.0] * _MOST_BOUNDARIES
        self._seen = 0.0

    @property
    def shares(self) -> list[float]:
        """Share of recent sharings at each boundary, from the last one backwards; at most 1 together."""
        return [(explained + _PRIOR) / (self._seen + 1.0) for explained in self._explained]

    def at(self, boundaries: Sequence[int], overlap_depth: int) -> int | None:
        """Return the boundary that a divergence is at; None for none. ``boundaries`` ascend. O(log n)."""
        index = bisect_right(boundaries, overlap_depth) - 1
        return boundaries[index] if index >= 0 and overlap_depth - boundaries[index] < self.width else None

    def observe(self, boundaries: Sequence[int], overlap_depth: int, *, expected: float) -> None:
        """Learn from a request that shares ``overlap_depth`` tokens of a prompt with these boundaries.

        Args:
            boundaries: Of that prompt, ascending, in tokens from its start.
            overlap_depth: Where the request diverged.
            expected: Chance that it would diverge at this boundary, as far as anything else knew.
        """
        for place in range(_MOST_BOUNDARIES):
            self._explained[place] *= self._decay
        self._seen = self._seen * self._decay + 1.0
        boundary = self.at(boundaries, overlap_depth)
        if boundary is None:
            return
        shares = self.shares
        place = _place(boundaries, boundary)
        mine = shares[place]
        self._explained[place] += mine / (mine + (1.0 - min(1.0, sum(shares))) * expected + 1e-12)

    def export(self) -> dict[str, Any]:
        """Return what was learned, as plain numbers."""
        return {"explained": list(self._explained), "seen": self._seen}

    def restore(self, exported: dict[str, Any]) -> None:
        """Take over what :meth:`export` gave; raise ``ValueError`` where that cannot be."""
        explained = [float(each) for each in exported["explained"]]
        if len(explained) != _MOST_BOUNDARIES:
            raise ValueError(f"{len(explained)} boundaries, not {_MOST_BOUNDARIES}")
        self._explained, self._seen = explained, float(exported["seen"])

    def merge(self, exports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one export of several: what each has explained, added up, as far as is remembered."""
        seen = [float(each["seen"]) for each in exports]
        merged = merged_weight(seen, decay=self._decay)
        scale = merged / sum(seen) if merged else 1.0
        places = zip(*(each["explained"] for each in exports), strict=True)
        return {"explained": [sum(place) * scale for place in places], "seen": merged}

    def predict(self, boundaries: Sequence[int]) -> list[tuple[int, float]]:
        """Return each boundary of a prompt and the chance of a divergence at it, ascending. O(n)."""
        shares = self.shares
        places = [_place(boundaries, boundary) for boundary in boundaries]
        num_last = places.count(_MOST_BOUNDARIES - 1) or 1
        return [
            (boundary, shares[place] / (num_last if place == _MOST_BOUNDARIES - 1 else 1))
            for boundary, place in zip(boundaries, places, strict=True)
        ]


def _place(boundaries: Sequence[int], boundary: int) -> int:
    return min(len(boundaries) - bisect_right(boundaries, boundary), _MOST_BOUNDARIES - 1)
