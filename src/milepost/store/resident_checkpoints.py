"""The checkpoints that are stored: put on the tree and taken from it, with all that hangs on each.

A checkpoint has neighbours above and below, an owner, a place in the eviction queue, a share of the budget,
and KV before it that it keeps. All of these change here, together, and nowhere else.
"""

from bisect import insort
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, final

from milepost.store.budget import Budget
from milepost.store.checkpoint import Checkpoint, Payload
from milepost.store.eviction_queue import EvictionQueue
from milepost.store.neighbours import link, unlink
from milepost.store.node import Node
from milepost.store.resident_kv import ResidentKV
from milepost.store.tree import RadixTree

__all__ = ["ResidentCheckpoints"]

_position_of = attrgetter("position")
# Above a place where more checkpoints follow at once, the loss of one changes little for the others.
_MOST_SIBLINGS_MARKED = 8


@final
class ResidentCheckpoints:
    """See the module.

    Args:
        tree: Where they sit.
        kv: The KV that they keep.
        budget: What they take.
        queue: Which of them goes next.
        drop: Told of the payloads that are not needed any more.
        is_stateless: Whether KV alone is enough to resume from.
        weighs_neighbours: Whether the worth of one depends on its neighbours.

    Attributes:
        count: How many are stored.
    """

    def __init__(
        self,
        *,
        tree: RadixTree,
        kv: ResidentKV,
        budget: Budget,
        queue: EvictionQueue,
        drop: Callable[[Sequence[Any]], None],
        is_stateless: bool,
        weighs_neighbours: bool,
    ) -> None:
        self.count = 0
        self._tree = tree
        self._kv = kv
        self._budget = budget
        self._queue = queue
        self._drop = drop
        self._is_stateless = is_stateless
        self._weighs_neighbours = weighs_neighbours
        self._next_serial = 0

    def add(
        self, node: Node, position: int, *, payload: Payload | None, num_bytes: int, tick: int
    ) -> Checkpoint:
        """Put a checkpoint on ``node``, for which there is room and whose KV is there. O(depth)."""
        checkpoint = Checkpoint(
            node=node,
            position=position,
            payload=payload,
            num_bytes=num_bytes,
            serial=self._next_serial,
            tick=tick,
        )
        self._next_serial += 1
        was_live = node.is_live
        insort(node.checkpoints, checkpoint, key=_position_of)
        if payload is not None or self._is_stateless:
            # KV alone is nothing to resume from: the state that went from here would be missing still.
            if position in node.evicted:
                node.evicted = tuple(each for each in node.evicted if each != position)
            if position in node.cleared:
                node.cleared = tuple(each for each in node.cleared if each != position)
        self._budget.state_bytes += num_bytes
        self.count += 1
        self._spread_life(node, was_live=was_live)
        node.owner.own(checkpoint)
        link(checkpoint)
        self._queue.mark_stale(checkpoint)
        self._mark_neighbours(checkpoint, checkpoint.above, list(checkpoint.below.values()))
        return checkpoint

    def remove(self, checkpoint: Checkpoint) -> None:
        """Take out an unpinned ``checkpoint`` as if it had not been placed, with the KV it alone needs."""
        self._queue.remove(checkpoint)
        node, owner = checkpoint.node, checkpoint.owner
        assert owner is not None
        node.checkpoints.remove(checkpoint)
        neighbours = unlink(checkpoint)
        del owner.owned[checkpoint.serial]
        checkpoint.owner = None
        self._drop((checkpoint.payload,))
        # A lease that still knows the checkpoint must not keep its memory alive.
        checkpoint.payload = None
        self._budget.state_bytes -= checkpoint.num_bytes
        self.count -= 1
        self._release_kv(node)
        self._mark_neighbours(checkpoint, *neighbours)

    def strip(self, checkpoint: Checkpoint) -> None:
        """Let go of the state of ``checkpoint`` and keep its KV."""
        self._drop((checkpoint.payload,))
        self._budget.state_bytes -= checkpoint.num_bytes
        checkpoint.payload, checkpoint.num_bytes = None, 0
        self.keep_as_kv_only(checkpoint)

    def keep_as_kv_only(self, checkpoint: Checkpoint) -> None:
        """Have ``checkpoint`` stand for KV alone, which nothing can be resumed from."""
        checkpoint.is_kv_only = True
        self._queue.mark_stale(checkpoint)

    def _mark_neighbours(
        self, checkpoint: Checkpoint, above: Checkpoint | None, below: Sequence[Checkpoint]
    ) -> None:
        """Have those ranked again whose worth depends on ``checkpoint``, just put in or taken out."""
        if not self._weighs_neighbours:
            return
        if above is not None:
            self._queue.mark_stale(above)
            # A branch fewer or more may change who holds the KV in between alone.
            if len(above.below) <= _MOST_SIBLINGS_MARKED:
                for sibling in above.below.values():
                    if sibling is not checkpoint:
                        self._queue.mark_stale(sibling)
        for deeper in below:
            self._queue.mark_stale(deeper)

    def _spread_life(self, node: Node, *, was_live: bool) -> None:
        """Count a node that came alive at its parent, and so on upwards."""
        self._tree.note_life(node)
        while not was_live and node.parent is not None and node.parent.parent is not None:
            node = node.parent
            was_live = node.is_live
            node.num_live_children += 1
            self._tree.note_life(node)

    def _release_kv(self, node: Node) -> None:
        """Free the KV of ``node`` and its ancestors that no checkpoint needs any more."""
        while True:
            self._kv.trim(node)
            if node.is_live:
                return
            self._tree.note_death(node)
            if node.parent is None or node.parent.parent is None:
                return
            node = node.parent
            node.num_live_children -= 1
