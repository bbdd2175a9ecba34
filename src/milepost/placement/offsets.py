"""Fixed distances from the prompt's two ends, as TensorRT-LLM is configured."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from milepost.counts import as_count
from milepost.errors import ConfigurationError
from milepost.placement.admissible import admissible
from milepost.placement.base import Placement, PlacementPolicy, PlacementRequest

__all__ = ["Offsets"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets(PlacementPolicy):
    """Positions at fixed distances from the start and from the end, and optionally at equal intervals.

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
        # Position 0 needs no checkpoint.
        for name, least in (("from_start", 1), ("from_end", 0)):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise ConfigurationError(f"{name}={given!r}; give a tuple of distances in tokens")
            checked = tuple(as_count(name, each, least=least) for each in given)
            object.__setattr__(self, name, checked)
        if self.every is not None:
            object.__setattr__(self, "every", as_count("every", self.every, least=1))
        if not self.from_start and not self.from_end and self.every is None:
            raise ConfigurationError("no offsets; give at least one of from_start, from_end or every")

    def place(self, request: PlacementRequest) -> Placement:
        """Return the offsets that lie in this prompt, beyond the resume position. O(offsets + periods)."""
        wished = [*self.from_start, *(request.num_tokens - offset for offset in self.from_end)]
        if self.every is not None:
            wished.extend(range(self.every, request.num_tokens + 1, self.every))
        return admissible(request, wished)
