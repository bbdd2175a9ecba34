"""Fixed distances from the prompt's two ends, as TensorRT-LLM is configured."""

from dataclasses import dataclass
from typing import final

from milepost.errors import ConfigurationError
from milepost.placement.admissible import admissible
from milepost.placement.base import Placement, PlacementPolicy, PlacementRequest

__all__ = ["Offsets"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets(PlacementPolicy):
    """Positions at fixed distances from the start and from the end, and optionally every so many tokens.

    Attributes:
        from_start: Distances from the start, above 0 (``additional_snapshot_offsets_from_start``).
        from_end: Distances back from the end; 0 is the prompt's end
            (``additional_snapshot_offsets_from_end``).
        every: Interval of periodic positions (``periodic_snapshot_interval``), or None.

    Distances that fall outside the prompt are ignored.
    """

    from_start: tuple[int, ...] = ()
    from_end: tuple[int, ...] = ()
    every: int | None = None

    def __post_init__(self) -> None:
        if not self.from_start and not self.from_end and self.every is None:
            raise ConfigurationError("no offsets; give at least one of from_start, from_end or every")
        if any(offset < 1 for offset in self.from_start):
            raise ConfigurationError(
                f"from_start={self.from_start}; position 0 needs no checkpoint: use 1 or more"
            )
        if any(offset < 0 for offset in self.from_end):
            raise ConfigurationError(f"from_end={self.from_end}; distances from the end are 0 or more")
        if self.every is not None and self.every < 1:
            raise ConfigurationError(f"every={self.every}; give at least 1 of tokens")

    def place(self, request: PlacementRequest) -> Placement:
        """Return the offsets that lie in this prompt, beyond the resume position. O(offsets + periods)."""
        wished = [*self.from_start, *(request.num_tokens - offset for offset in self.from_end)]
        if self.every is not None:
            wished.extend(range(self.every, request.num_tokens + 1, self.every))
        return admissible(request, wished)
