"""What llama.cpp's server does (November 2026): states where messages end, and at the prompt's end.

Placement
    Where messages end, at least ``step`` tokens apart and at most ``count`` of one prompt, the deepest; the
    last one whatever the step, and the prompt's end. Of a prompt whose messages are not known, its end alone.
Eviction
    Least recently used.

Not modelled: that only the beginnings of users' messages count, and that KV is copied for each prompt.
"""

from dataclasses import dataclass
from typing import final

from milepost.errors import ConfigurationError
from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.admissible import admissible, deepest_reusable

__all__ = ["SpacedMessageEnds"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SpacedMessageEnds(PlacementPolicy):
    """Ends of messages, some way apart, and the prompt's end."""

    step: int = 8192
    count: int = 32

    def __post_init__(self) -> None:
        if self.step < 0 or self.count < 1:
            raise ConfigurationError(
                f"step={self.step}, count={self.count}; give a step of at least 0 and a count of at least 1"
            )

    def place(self, request: PlacementRequest) -> Placement:
        """Return the ends that lie far enough apart. O(messages)."""
        tail = deepest_reusable(request)
        ends = [end for end in request.breakpoints if request.resume_position < end < tail]
        kept: list[int] = []
        latest = request.resume_position
        for end in ends:
            if end - latest >= self.step or end == ends[-1]:
                kept.append(end)
                latest = end
        return admissible(request, (*kept, tail)[-self.count :])
