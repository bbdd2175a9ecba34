"""Checkpoints that clients asked to have kept for some time, beside what leases pin.

A promised checkpoint is pinned like one that a lease holds, until its time is over. Nobody watches the clock:
what is over is found when room is needed. Promises may take half of the budget, KV included; beyond that the
oldest promise is let go, and its checkpoint is one like any other from then on.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import final

from milepost.store.budget import Budget
from milepost.store.checkpoint import Checkpoint
from milepost.store.eviction_queue import EvictionQueue
from milepost.store.node import Node
from milepost.store.resident_checkpoints import ResidentCheckpoints
from milepost.store.resident_kv import ResidentKV, node_at

__all__ = ["Promises"]

_MOST_SHARE = 2


@final
class Promises:
    """See the module.

    Args:
        checkpoints: Those that are stored.
        queue: Where they are pinned.
        kv: The KV that is stored.
        budget: Of which they may take a half.
        is_stateless: Whether KV alone is enough to resume from.
        clock: Returns seconds from some start on.
    """

    def __init__(
        self,
        *,
        checkpoints: ResidentCheckpoints,
        queue: EvictionQueue,
        kv: ResidentKV,
        budget: Budget,
        is_stateless: bool,
        clock: Callable[[], float],
    ) -> None:
        self._checkpoints = checkpoints
        self._queue = queue
        self._is_stateless = is_stateless
        self._kv = kv
        self._budget = budget
        self._clock = clock
        # By serial, the oldest promise first; and when each of them, or one before it, is over.
        self._kept: dict[int, tuple[Checkpoint, float]] = {}
        self._ends: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.serial in self._kept

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Those that are promised, the oldest promise first."""
        return [checkpoint for checkpoint, _ in self._kept.values()]

    @property
    def most_bytes(self) -> int:
        """What they may take."""
        return self._budget.capacity_bytes // _MOST_SHARE

    @property
    def num_bytes(self) -> int:
        """What they take, with the KV before them. O(promises · nodes on their paths)."""
        kept = self.checkpoints
        kv = self._kv.needed_bytes((each.node, each.position) for each in kept)
        return kv + sum(each.num_bytes for each in kept)

    def keep(
        self, path: Sequence[Node], position: int, *, ttl_seconds: float, tick: int
    ) -> Checkpoint | None:
        """Promise to keep the checkpoint at ``position`` of the prompt along ``path`` for that long from now
        on, or for longer where that was promised; return it, None where there is none.
        """
        node = node_at(path, position)
        checkpoint = node.checkpoint_at(position)
        if checkpoint is None and self._is_stateless and self._kv.reach(path) >= position:
            checkpoint = self._checkpoints.add(node, position, payload=None, num_bytes=0, tick=tick)
        if checkpoint is None or checkpoint.is_kv_only:
            return None
        checkpoint.last_used = tick
        until = self._clock() + ttl_seconds
        known = self._kept.pop(checkpoint.serial, None)
        if known is None:
            self._queue.pin(checkpoint)
        else:
            until = max(until, known[1])
        self._kept[checkpoint.serial] = checkpoint, until
        heappush(self._ends, (until, checkpoint.serial))
        return checkpoint

    def expire(self) -> None:
        """Let go of those whose time is over. O(log promises) each."""
        if not self._ends:
            return
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, serial = heappop(self._ends)
            kept = self._kept.get(serial)
            if kept is not None and kept[1] <= now:
                self.release(kept[0])

    def bound(self) -> int:
        """Let go of the oldest until the rest take no more than they may; return how many."""
        num_released = 0
        while self._kept and self.num_bytes > self.most_bytes:
            self.release(next(iter(self._kept.values()))[0])
            num_released += 1
        return num_released

    def release(self, checkpoint: Checkpoint) -> None:
        """Let go of ``checkpoint``; harmless where nothing was promised."""
        if self._kept.pop(checkpoint.serial, None) is not None:
            self._queue.unpin(checkpoint)

    def release_all(self) -> None:
        """Let go of all."""
        for checkpoint in self.checkpoints:
            self.release(checkpoint)
