"""A cache policy: placement and eviction as one."""

from dataclasses import dataclass, field

from milepost.errors import ConfigurationError
from milepost.placement import PlacementPolicy
from milepost.store import EvictionPolicy, Recency

__all__ = ["CachePolicy"]


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Where checkpoints are placed, and which goes first when memory is needed.

    A policy learns from one cache: give each cache its own.

    Attributes:
        placement: Where checkpoints are placed.
        eviction: Which goes first; the least recently used unless given.
        keeps_kv: Whether KV is kept to the end of each prompt, though no state needs it there, as engines do
            whose KV cache knows nothing of states.
        state_share: Share of the budget that only states may take, and KV only the rest; None for one budget.
    """

    placement: PlacementPolicy
    eviction: EvictionPolicy = field(default_factory=Recency)
    keeps_kv: bool = False
    state_share: float | None = None

    def __post_init__(self) -> None:
        if self.state_share is not None and not 0.0 < self.state_share < 1.0:
            raise ConfigurationError(
                f"state_share={self.state_share}; give a share above 0 and below 1, or none"
            )
