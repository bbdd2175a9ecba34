"""A checkpoint: a position of a prompt that a request can resume from."""

import math
from typing import TYPE_CHECKING, Protocol, final

from milepost.untracked import untracked

if TYPE_CHECKING:
    from milepost.store.eviction_order import Group
    from milepost.store.node import Node
    from milepost.store.seen import SeenPrompt

__all__ = ["Checkpoint", "Payload"]


class Payload(Protocol):
    """An opaque handle to what a checkpoint holds. The store reads its size and nothing else."""

    @property
    def num_bytes(self) -> int:
        """Bytes that the payload keeps alive."""


@final
class Checkpoint:
    """A resumable position: a stored state, or a zero-byte anchor where KV alone is enough.

    Attributes:
        node: The node whose edge covers ``position``.
        position: Tokens from the start of the prompt.
        payload: What the engine stored; None for an anchor.
        num_bytes: Bytes of the payload, KV not included.
        serial: Order of creation; breaks ties, so that runs repeat exactly.
        last_used: Tick of the last request that resumed here or stored it.
        num_pins: Leases that pin it now; a pinned checkpoint is never evicted.
        above: The next shallower checkpoint on the same path.
        below: The next deeper ones, at most one on each path, by serial.
        owner: The latest prompt through its node; None once it is gone.
        cost: Cost of computing the tokens before it.
        reload_cost: Cost of bringing it back from where a copy lies; infinite where there is none.
        is_kv_only: Whether it merely keeps KV, beside a model that cannot resume without a state.
        kv_tokens: Tokens whose KV only this one needed when it was ranked last.
        group: Its place in the order of evictions, which alone sets it and ``worth``.
    """

    __slots__ = (
        "above", "below", "cost", "group", "is_kv_only", "kv_tokens", "last_used", "node", "num_bytes",
        "num_pins", "owner", "payload", "position", "reload_cost", "serial", "worth",
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
        self.below: dict[int, Checkpoint] = untracked({})
        self.owner: SeenPrompt | None = None
        self.cost = float(position)
        self.reload_cost = math.inf
        self.is_kv_only = False
        self.kv_tokens = 0
        self.group: Group | None = None
        self.worth = 0.0
        untracked(self)

    @property
    def is_stored(self) -> bool:
        """Whether it is in the cache still."""
        return self.owner is not None

    @property
    def may_go(self) -> bool:
        """Whether it is stored and no lease pins it."""
        return self.num_pins == 0 and self.owner is not None

    @property
    def above_position(self) -> int:
        """Where a request has to resume without this checkpoint."""
        return 0 if self.above is None else self.above.position

    @property
    def saving(self) -> float:
        """What a request that resumes here saves over the checkpoint above, or over a copy."""
        saved = self.cost if self.above is None else self.cost - self.above.cost
        return min(saved, self.reload_cost)

    @property
    def deeper_position(self) -> float:
        """Where the latest prompt through here has its next checkpoint; infinite where it has none."""
        owner = self.owner
        assert owner is not None
        # At most one of those below is of the same owner; the fewer of the two are looked through.
        among = self.below if len(self.below) <= len(owner.owned) else owner.owned
        for other in among.values():
            if other.owner is owner and other.above is self:
                return other.position
        return math.inf
