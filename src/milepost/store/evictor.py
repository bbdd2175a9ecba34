"""Making room: what goes, one checkpoint after another, until what is wanted fits beside what leases pin.

Nothing is evicted in vain: where what is pinned leaves too little, that is found out first.
"""

import math
from collections.abc import Sequence
from typing import final

from milepost.store.budget import Budget
from milepost.store.checkpoint import Checkpoint
from milepost.store.eviction_policy import EvictionPolicy
from milepost.store.eviction_queue import EvictionQueue
from milepost.store.kv_tails import trim_tail
from milepost.store.neighbours import exclusive_kv_tokens
from milepost.store.node import Node
from milepost.store.promises import Promises
from milepost.store.resident_checkpoints import ResidentCheckpoints
from milepost.store.resident_kv import ResidentKV, node_at

__all__ = ["Evictor"]


@final
class Evictor:
    """See the module.

    Args:
        policy: Told of each eviction.
        checkpoints: Those that are stored.
        kv: The KV that is stored.
        budget: What all of it may take.
        queue: Which checkpoint goes next.
        promises: Which may not go; those whose time is over are let go where room is needed.
        keeps_kv: Whether KV stays where its state is evicted (:mod:`milepost.store.kv_tails`).

    Attributes:
        num_evictions: How many checkpoints were evicted.
    """

    def __init__(
        self,
        policy: EvictionPolicy,
        *,
        checkpoints: ResidentCheckpoints,
        kv: ResidentKV,
        budget: Budget,
        queue: EvictionQueue,
        promises: Promises,
        keeps_kv: bool,
    ) -> None:
        self.num_evictions = 0
        self._policy = policy
        self._checkpoints = checkpoints
        self._kv = kv
        self._budget = budget
        self._queue = queue
        self._promises = promises
        self.keeps_kv = keeps_kv

    def make_room(self, path: Sequence[Node], position: int, num_bytes: int) -> bool:
        """Evict until states of ``num_bytes`` fit with the KV before ``position`` of the prompt along
        ``path``, or return False and evict nothing where what is pinned leaves too little.
        """
        shortage = self._budget.shortage(path, position, num_bytes)
        if shortage.num_bytes <= 0:
            return True
        if not self.can_hold(path, position, num_bytes):
            return False
        # A victim may take KV of this very path with it, so what is missing is counted anew each time.
        while shortage.num_bytes > 0:
            checkpoint = self._next_victim(shortage.cell)
            if checkpoint.is_kv_only:
                trim_tail(self._checkpoints, self._kv, checkpoint, shortage.num_bytes)
            else:
                self.evict(checkpoint)
            shortage = self._budget.shortage(path, position, num_bytes)
        return True

    def can_hold(self, path: Sequence[Node], position: int, num_bytes: int) -> bool:
        """Return whether states of ``num_bytes`` and the KV before ``position`` of the prompt along ``path``
        fit beside what is pinned. Evicts nothing.
        """
        self._promises.expire()
        place = node_at(path, position), position
        pinned = self._queue.pinned
        return self._budget.can_hold(place, num_bytes, pinned=pinned, prompt=path[0].owner)

    def room_worth(self, num_bytes: int) -> float:
        """Return what is lost by evicting for ``num_bytes`` more, as worth; infinite where not even that
        is enough. Evicts nothing. O(victims · log n).
        """
        shortage = self._budget.stored_bytes + num_bytes - self._budget.capacity_bytes
        if shortage > 0:
            self._promises.expire()
        total, is_enough = self._queue.worth_of(shortage)
        # Branches share KV that was counted for none of them.
        if not is_enough and not self._budget.can_hold_beside(self._queue.pinned, num_bytes):
            return math.inf
        return total

    def evict(self, checkpoint: Checkpoint) -> None:
        """Drop an unpinned ``checkpoint`` and the KV that no other needs. O(KV segments freed + depth)."""
        node = checkpoint.node
        node.evicted = tuple(sorted((*node.evicted, checkpoint.position)))
        self.num_evictions += 1
        if self.keeps_kv and exclusive_kv_tokens(checkpoint):
            self._checkpoints.strip(checkpoint)
        else:
            self._checkpoints.remove(checkpoint)

    def least(self) -> Checkpoint | None:
        """Return the checkpoint that is worth least; None where there is none. Evicts nothing."""
        self._promises.expire()
        return self._queue.victim()[0] if self._queue else None

    def evict_least(self) -> bool:
        """Evict the checkpoint that is worth least; return whether there was one."""
        self._promises.expire()
        if not self._queue:
            return False
        checkpoint = self._next_victim()
        if checkpoint.is_kv_only:
            # There is nothing else to keep of it.
            self._checkpoints.remove(checkpoint)
        else:
            self.evict(checkpoint)
        return True

    def shrink(self) -> None:
        """Evict until the budget is kept, or nothing is left that nobody pins. O(1) where it is kept."""
        while self._budget.stored_bytes > self._budget.capacity_bytes and self.evict_least():
            pass

    def _next_victim(self, cell: int | None = None) -> Checkpoint:
        checkpoint, worth = self._queue.victim(cell)
        self._policy.note_eviction(checkpoint, worth)
        return checkpoint
