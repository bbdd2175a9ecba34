"""A node of the radix tree: one edge, and what lies on it."""

from bisect import bisect_right
from operator import attrgetter
from typing import Any, final

import numpy as np

from milepost.store.checkpoint import Checkpoint
from milepost.store.seen import BranchPoint, SeenPrompt
from milepost.tokens import KeyArray
from milepost.untracked import untracked

__all__ = ["Node"]

_position_of = attrgetter("position")


@final
class Node:
    """One edge of the radix tree: tokens ``[start, end)`` of every prompt that passes through it.

    Attributes:
        data: The keys of the edge as bytes; never empty, except at a root.
        end: Where the edge ends. After a partial last block it lies beyond the prompt's last token.
        children: First key of the child's edge, as bytes -> child.
        kv: Payloads of the KV segments that end in ``(start, end]``, in order, resident up to some segment.
        checkpoints: Checkpoints at positions in ``(start, end]``, ascending.
        evicted: Positions in ``(start, end]`` whose checkpoint was evicted, ascending.
        cleared: Positions in ``(start, end]`` whose checkpoint went when all was cleared, ascending.
        num_live_children: Children with a checkpoint somewhere below.
        owner: The latest prompt that reached this node's end.
        branch_point: What is known of prompts that diverged at this node's end; None where none did.
        num_kv_reached: The most KV segments that were ever resident here.
        older, newer: Its neighbours in the queue of history; None outside of it.
        is_queued: Whether it is in that queue.
    """

    __slots__ = (
        "branch_point", "checkpoints", "children", "cleared", "data", "end", "evicted", "is_queued", "kv",
        "newer", "num_kv_reached", "num_live_children", "older", "owner", "parent", "start",
    )  # fmt: skip

    def __init__(
        self, *, parent: "Node | None", start: int, end: int, data: bytes, owner: SeenPrompt
    ) -> None:
        self.parent = parent
        self.start = start
        self.end = end
        self.data = data
        self.owner = owner
        self.children: dict[bytes, Node] = untracked({})
        self.kv: list[Any] = untracked([])
        self.checkpoints: list[Checkpoint] = untracked([])
        # Most nodes have none, so they share the empty tuple.
        self.evicted: tuple[int, ...] = ()
        self.cleared: tuple[int, ...] = ()
        self.num_live_children = 0
        self.num_kv_reached = 0
        self.branch_point: BranchPoint | None = None
        self.older: Node | None = None
        self.newer: Node | None = None
        self.is_queued = False
        untracked(self)

    @property
    def is_live(self) -> bool:
        """Whether a checkpoint sits on this node or below it."""
        return bool(self.checkpoints) or self.num_live_children > 0

    def adopt(self, child: "Node", *, first_key: bytes) -> None:
        """Take ``child``, whose edge begins with ``first_key``, for a child, in place of any other."""
        self.children[first_key] = child
        untracked(self.children)
        child.parent = self

    def keys(self, dtype: np.dtype[Any]) -> KeyArray:
        """Return the keys of the edge, a view of shape ``[num_keys]``."""
        return np.frombuffer(self.data, dtype)

    def num_segments_to(self, position: int, segment_tokens: int) -> int:
        """Return how many KV segments end in ``(start, position]``."""
        return position // segment_tokens - self.start // segment_tokens

    def num_segments_needed(self, segment_tokens: int) -> int:
        """Return how many of this node's KV segments some checkpoint needs to be resumed from."""
        if self.num_live_children:
            return self.num_segments_to(self.end, segment_tokens)
        if self.checkpoints:
            return self.num_segments_to(self.checkpoints[-1].position, segment_tokens)
        return 0

    def deepest_checkpoint(self, limit: int) -> Checkpoint | None:
        """Return the deepest checkpoint to resume from at a position of at most ``limit``. O(log
        checkpoints), and the KV-only ones after it.
        """
        index = bisect_right(self.checkpoints, limit, key=_position_of)
        while index and self.checkpoints[index - 1].is_kv_only:
            index -= 1
        return self.checkpoints[index - 1] if index else None

    def checkpoint_at(self, position: int) -> Checkpoint | None:
        """Return the checkpoint exactly at ``position``."""
        index = bisect_right(self.checkpoints, position, key=_position_of)
        found = self.checkpoints[index - 1] if index else None
        return found if found is not None and found.position == position else None

    def cut(self, at: int, *, upper: "Node", segment_tokens: int) -> None:
        """Hand what lies at or before position ``at`` to ``upper``, the new upper half of this edge. Payloads
        are never cut: each KV segment and checkpoint goes to the half that holds its last token.
        """
        num_kv = upper.num_segments_to(at, segment_tokens)
        upper.kv, self.kv = _halves(self.kv, num_kv)
        upper.num_kv_reached = min(self.num_kv_reached, num_kv)
        self.num_kv_reached -= upper.num_kv_reached
        half = bisect_right(self.checkpoints, at, key=_position_of)
        upper.checkpoints, self.checkpoints = _halves(self.checkpoints, half)
        for checkpoint in upper.checkpoints:
            checkpoint.node = upper
        half = bisect_right(self.evicted, at)
        upper.evicted, self.evicted = self.evicted[:half], self.evicted[half:]
        half = bisect_right(self.cleared, at)
        upper.cleared, self.cleared = self.cleared[:half], self.cleared[half:]
        self.start = at
        upper.num_live_children = int(self.is_live)

    def take_over(self, lower: "Node", *, segment_tokens: int) -> None:
        """Become one edge with ``lower``, the only child."""
        if self.num_kv_reached == self.num_segments_to(self.end, segment_tokens):
            self.num_kv_reached += lower.num_kv_reached
        self.data += lower.data
        self.end = lower.end
        self.children = lower.children
        for child in self.children.values():
            child.parent = self
        self.kv += lower.kv
        for checkpoint in lower.checkpoints:
            checkpoint.node = self
        for checkpoint in self.checkpoints:
            lower.owner.own(checkpoint)
        self.checkpoints += lower.checkpoints
        self.evicted += lower.evicted
        self.cleared += lower.cleared
        self.num_live_children = lower.num_live_children
        self.owner = lower.owner
        self.branch_point = lower.branch_point

    def take_apart(self) -> None:
        """Break every cycle that this node and its checkpoints are part of, when the whole tree goes."""
        self.children.clear()
        self.parent = self.older = self.newer = None
        if self.branch_point is not None:
            self.branch_point.covered_by = None
        self.owner.forecast = None
        self.owner.owned.clear()
        for checkpoint in self.checkpoints:
            checkpoint.below.clear()
            checkpoint.above = None
            if checkpoint.group is not None:
                checkpoint.group.take_apart()
        self.checkpoints.clear()


def _halves(values: list[Any], at: int) -> tuple[list[Any], list[Any]]:
    return (untracked(values[:at]), untracked(values[at:])) if values else (untracked([]), values)
