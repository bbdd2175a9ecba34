"""Which checkpoint goes when memory is needed: a policy answers with one sortable key per checkpoint."""

from abc import ABC, abstractmethod

from sortedcontainers import SortedDict

from milepost.store.node import Checkpoint

__all__ = ["EvictionOrder", "EvictionPolicy", "Recency"]


class EvictionPolicy(ABC):
    """Ranks checkpoints. The key may depend on the checkpoint alone and changes only when it is used."""

    @abstractmethod
    def key(self, checkpoint: Checkpoint) -> float:
        """Return the rank of ``checkpoint``: the least is evicted first; ties go to the oldest."""


class Recency(EvictionPolicy):
    """Least recently used. Using a checkpoint refreshes it alone, not the ones before it on the same prompt:
    those are kept only as long as requests really part there.
    """

    def key(self, checkpoint: Checkpoint) -> float:
        """Return the tick of the last use."""
        return checkpoint.last_used


class EvictionOrder:
    """The unpinned checkpoints, least valuable first. O(log n) to enter, leave and move."""

    def __init__(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        self._ranked: SortedDict[tuple[float, int], Checkpoint] = SortedDict()
        self._rank_of: dict[int, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._ranked)

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.serial in self._rank_of

    def enter(self, checkpoint: Checkpoint) -> None:
        """Rank ``checkpoint`` among those that may be evicted."""
        rank = (self._policy.key(checkpoint), checkpoint.serial)
        self._rank_of[checkpoint.serial] = rank
        self._ranked[rank] = checkpoint

    def leave(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint``, or forget it after its eviction."""
        del self._ranked[self._rank_of.pop(checkpoint.serial)]

    def first(self) -> Checkpoint | None:
        """Return the next victim."""
        return self._ranked.peekitem(0)[1] if self._ranked else None
