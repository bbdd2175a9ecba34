"""The two things the store is made of: nodes of the radix tree, and the checkpoints that sit on them."""

from bisect import bisect_right
from operator import attrgetter
from typing import Any, Protocol

from milepost.tokens import TokenArray

__all__ = ["Checkpoint", "Node", "Payload"]

_position_of = attrgetter("position")


class Payload(Protocol):
    """An opaque handle to what a checkpoint holds. The store reads its size and nothing else."""

    @property
    def num_bytes(self) -> int:
        """Bytes that the payload keeps alive."""


class Checkpoint:
    """A resumable position: a stored state, or a zero-byte anchor where KV alone is enough.

    Attributes:
        node: The node whose edge covers ``position``.
        position: Tokens from the start of the prompt.
        payload: What the engine stored; None for an anchor.
        num_bytes: Bytes of the payload, KV not included.
        serial: Order of creation; breaks ties, so that runs repeat exactly.
        last_used: Tick of the last request that resumed here or stored it.
        num_pins: Leases that hold it now; a pinned checkpoint is never evicted.
    """

    __slots__ = ("last_used", "node", "num_bytes", "num_pins", "payload", "position", "serial")

    def __init__(
        self, *, node: "Node", position: int, payload: Payload | None, num_bytes: int, serial: int, tick: int
    ) -> None:
        self.node = node
        self.position = position
        self.payload = payload
        self.num_bytes = num_bytes
        self.serial = serial
        self.last_used = tick
        self.num_pins = 0


class Node:
    """One edge of the radix tree: tokens ``[start, end)`` of every prompt that passes through it.

    Attributes:
        tokens: The edge; never empty, except at a root.
        children: First token of the child's edge -> child.
        kv: Payloads of the KV segments that end in ``(start, end]``, in order, resident up to some segment.
        checkpoints: Checkpoints at positions in ``(start, end]``, ascending.
        dropped: Positions in ``(start, end]`` whose checkpoint was evicted, ascending.
        num_live_children: Children with a checkpoint somewhere below.
        latest_num_tokens: Length of the latest prompt that reached this node's end.
        num_kv_reached: The most KV segments that were ever resident here.
    """

    __slots__ = (
        "checkpoints", "children", "dropped", "end", "kv", "latest_num_tokens", "num_kv_reached",
        "num_live_children", "parent", "start", "tokens",
    )  # fmt: skip

    def __init__(self, *, parent: "Node | None", start: int, tokens: TokenArray) -> None:
        self.parent = parent
        self.start = start
        self.end = start + int(tokens.size)
        self.tokens = tokens
        self.children: dict[int, Node] = {}
        self.kv: list[Any] = []
        self.checkpoints: list[Checkpoint] = []
        self.dropped: list[int] = []
        self.num_live_children = 0
        self.latest_num_tokens = self.end
        self.num_kv_reached = 0

    @property
    def is_live(self) -> bool:
        """Whether a checkpoint sits on this node or below it."""
        return bool(self.checkpoints) or self.num_live_children > 0

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
        """Return the deepest checkpoint at a position of at most ``limit``. O(log checkpoints)."""
        index = bisect_right(self.checkpoints, limit, key=_position_of)
        return self.checkpoints[index - 1] if index else None

    def checkpoint_at(self, position: int) -> Checkpoint | None:
        """Return the checkpoint exactly at ``position``."""
        found = self.deepest_checkpoint(position)
        return found if found is not None and found.position == position else None
