"""What mlx-lm's server does for recurrent models (0.32.2): three whole caches a request, and no trimming.

Placement
    The end of the first message, taken for the system's, and the prompt's end short of one token.
Eviction
    In the order in which they were stored; a hit does not refresh.

Not modelled: the cache at the answer's end, that system messages are favoured, and that every cache holds a
copy of all its KV (which a footprint can say).
"""

from typing import final

from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.admissible import admissible, deepest_reusable
from milepost.policies.base import CachePolicy
from milepost.store import Checkpoint, EvictionPolicy

__all__ = ["FirstMessageAndTail", "StoringOrder", "mlx"]


@final
class FirstMessageAndTail(PlacementPolicy):
    """Where the first of several messages ends, and the prompt's tail."""

    def place(self, request: PlacementRequest) -> Placement:
        """Return up to two positions. O(1)."""
        ends = request.breakpoints
        first = ends[:1] if len(ends) > 1 else ()
        return admissible(request, (*first, deepest_reusable(request)))


@final
class StoringOrder(EvictionPolicy):
    """The one stored first goes first. O(1)."""

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return when it was stored."""
        return 0, checkpoint.serial


def mlx() -> CachePolicy:
    """Return a new policy. O(1) to place, O(log n) for each state stored or evicted."""
    return CachePolicy(FirstMessageAndTail(), StoringOrder())
