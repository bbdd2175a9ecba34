"""What TensorRT-LLM does (1.3, KV cache manager V2, ``kv_cache_config.mamba_state_config``).

Placement
    Where the operator says: every ``periodic_snapshot_interval`` tokens, and at
    ``additional_snapshot_offsets_from_start`` and ``..._from_end``; an offset outside the prompt is ignored.
    With ``enable_branch_snapshot`` also where the prompt leaves what is stored of earlier ones, at the second
    sighting. Without any offset, block reuse is off, whatever the branch setting.
KV
    Blocks are reused whether or not a state needs them, to the end of every prompt.
Eviction
    Least recently used within one byte budget, the end of a request before its beginning.

Not modelled: priorities of blocks, the host tier, and the split of the budget into pools of one page size
each.
"""

from dataclasses import dataclass
from typing import final

from milepost.placement import Offsets, Placement, PlacementPolicy, PlacementRequest
from milepost.placement.admissible import admissible
from milepost.policies.base import CachePolicy
from milepost.policies.peers.block_recency import BlockRecency
from milepost.policies.peers.matched import matched_junction

__all__ = ["OffsetsAndBranch", "tensorrt"]


@final
@dataclass(frozen=True, slots=True)
class OffsetsAndBranch(PlacementPolicy):
    """Fixed offsets, and the place where the prompt leaves what is stored of earlier ones."""

    offsets: Offsets

    def place(self, request: PlacementRequest) -> Placement:
        """Return the offsets and the branch point. O(offsets + periods)."""
        positions = self.offsets.place(request).positions
        branch = matched_junction(request)
        return admissible(request, positions if branch is None else (*positions, branch))


def tensorrt(
    *,
    from_start: tuple[int, ...] = (),
    from_end: tuple[int, ...] = (),
    every: int | None = None,
    branch: bool = False,
) -> CachePolicy:
    """Return a new policy.

    Args:
        from_start: Distances from the prompt's start.
        from_end: Distances back from its end; 0 is the end.
        every: Interval of periodic positions.
        branch: Whether a state is kept where the prompt diverges from earlier ones.

    Raises:
        ConfigurationError: no offset at all, or one out of its range.

    Complexity: O(offsets + periods) to place, O(log n) for each state or stretch of KV stored or evicted.
    """
    offsets = Offsets(from_start=from_start, from_end=from_end, every=every)
    return CachePolicy(OffsetsAndBranch(offsets) if branch else offsets, BlockRecency(), keeps_kv=True)
