"""The two things the store is made of: nodes of the radix tree, and the checkpoints that sit on them."""

import math
from bisect import bisect_right
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from milepost.reuse import Junction, Sighting
from milepost.tokens import KeyArray

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
        above: The next shallower checkpoint on the same path.
        below: The next deeper ones, at most one on each path, by serial.
        sighting: The latest prompt through its node; None once it is evicted.
        cost: Cost of computing the tokens before it.
        is_kv_only: Whether it merely keeps KV, beside a model that cannot resume without a state.
    """

    __slots__ = (
        "above", "below", "cost", "is_kv_only", "last_used", "node", "num_bytes", "num_pins", "payload",
        "position", "serial", "sighting",
    )  # fmt: skip

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
        self.above: Checkpoint | None = None
        self.below: dict[int, Checkpoint] = {}
        self.sighting: Sighting | None = None
        self.cost = float(position)
        self.is_kv_only = False

    @property
    def above_position(self) -> int:
        """Where a request has to resume without this checkpoint."""
        return 0 if self.above is None else self.above.position

    @property
    def saving(self) -> float:
        """What a request that resumes here saves over the checkpoint above."""
        return self.cost if self.above is None else self.cost - self.above.cost

    @property
    def deeper_position(self) -> float:
        """Where the latest prompt through here has its next checkpoint; infinite where it has none."""
        sighting = self.sighting
        assert sighting is not None
        # At most one of those below answers to the same prompt; whichever are fewer are looked through.
        among = self.below if len(self.below) <= len(sighting.held) else sighting.held
        for other in among.values():
            if other.sighting is sighting and other.above is self:
                return other.position
        return math.inf


class Node:
    """One edge of the radix tree: tokens ``[start, end)`` of every prompt that passes through it.

    Attributes:
        data: The keys of the edge as bytes; never empty, except at a root.
        end: Where the edge ends. Behind a partial last block it lies behind the prompt's last token.
        children: First key of the child's edge, as bytes -> child.
        kv: Payloads of the KV segments that end in ``(start, end]``, in order, resident up to some segment.
        checkpoints: Checkpoints at positions in ``(start, end]``, ascending.
        dropped: Positions in ``(start, end]`` whose checkpoint was evicted, ascending.
        cleared: Positions in ``(start, end]`` whose checkpoint went when all was cleared, ascending.
        num_live_children: Children with a checkpoint somewhere below.
        sighting: The latest prompt that reached this node's end.
        junction: What is known of partings at this node's end; None where no two prompts have parted.
        num_kv_reached: The most KV segments that were ever resident here.
    """

    __slots__ = (
        "checkpoints", "children", "cleared", "data", "dropped", "end", "junction", "kv", "num_kv_reached",
        "num_live_children", "parent", "sighting", "start",
    )  # fmt: skip

    def __init__(
        self, *, parent: "Node | None", start: int, end: int, data: bytes, sighting: Sighting
    ) -> None:
        self.parent = parent
        self.start = start
        self.end = end
        self.data = data
        self.sighting = sighting
        self.children: dict[bytes, Node] = {}
        self.kv: list[Any] = []
        self.checkpoints: list[Checkpoint] = []
        self.dropped: list[int] = []
        self.cleared: list[int] = []
        self.num_live_children = 0
        self.num_kv_reached = 0
        self.junction: Junction | None = None

    @property
    def is_live(self) -> bool:
        """Whether a checkpoint sits on this node or below it."""
        return bool(self.checkpoints) or self.num_live_children > 0

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
        checkpoints), and the KV-only ones behind it.
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
