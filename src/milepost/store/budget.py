"""The one hard byte budget over states and KV; or, for a peer that splits it, two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from milepost.store.checkpoint import Checkpoint
from milepost.store.eviction_policy import KV_CELL
from milepost.store.node import Node
from milepost.store.resident_kv import ResidentKV
from milepost.store.seen import SeenPrompt

__all__ = ["Budget", "Shortage"]


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is missing for a checkpoint with its KV.

    Attributes:
        num_bytes: By how much the budget is short; 0 or less where it is not.
        cell: The cell whose checkpoints make room first; None for any.
    """

    num_bytes: int
    cell: int | None = None


@final
class Budget:
    """See the module.

    Args:
        capacity_bytes: Over states and KV together.
        state_share: Share of it that only states may take, and KV only the rest; None for one budget.
        kv: The KV that is stored.

    Attributes:
        state_bytes: Bytes of the states that are stored.
    """

    def __init__(self, capacity_bytes: int, *, state_share: float | None, kv: ResidentKV) -> None:
        self.state_bytes = 0
        self._state_share = state_share
        self._kv = kv
        self.resize(capacity_bytes)

    def resize(self, capacity_bytes: int) -> None:
        """Change the budget; what is stored may exceed it then."""
        self.capacity_bytes = capacity_bytes
        share = self._state_share
        self._state_capacity = None if share is None else int(share * capacity_bytes)

    @property
    def stored_bytes(self) -> int:
        """Bytes of KV and states together."""
        return self._kv.num_bytes + self.state_bytes

    def shortage(self, path: Sequence[Node], position: int, num_bytes: int) -> Shortage:
        """Return what is missing for states of ``num_bytes`` on ``path`` and the KV before ``position``."""
        missing = self._kv.missing_bytes(path, position)
        if self._state_capacity is None:
            return Shortage(self.stored_bytes + num_bytes + missing - self.capacity_bytes)
        states = self.state_bytes + num_bytes - self._state_capacity
        kv = self._kv.num_bytes + missing - (self.capacity_bytes - self._state_capacity)
        # Any state makes room for a state; only what holds KV alone makes room for KV.
        return Shortage(states) if states > 0 else Shortage(kv, KV_CELL)

    def affordable(self, num_tokens: int, *, state_bytes: int, beside_bytes: int = 0) -> tuple[int, int]:
        """Return how many leading tokens of a prompt could have a state and its KV stored, beside other
        states of ``beside_bytes``; and how many states fit beside that KV, 1 where a state takes nothing.
        """
        kv, capacity_bytes = self._kv, self.capacity_bytes - beside_bytes
        num_segments = -(-num_tokens // kv.segment_tokens)
        if num_segments * kv.segment_bytes + state_bytes > capacity_bytes:
            # Without KV, or with a budget that shrank below one state, nothing fits at all.
            room = max(0, capacity_bytes - state_bytes)
            num_segments = room // kv.segment_bytes if kv.segment_bytes else 0
            num_tokens = num_segments * kv.segment_tokens
        free_bytes = max(0, capacity_bytes - num_segments * kv.segment_bytes)
        return num_tokens, free_bytes // state_bytes if state_bytes else 1

    def idle_position(self, num_tokens: int, *, resident_kv_tokens: int, state_bytes: int) -> int:
        """Return how many leading tokens of a prompt could have a state and its KV stored in what lies idle,
        with nothing evicted; 0 where not even the state fits.
        """
        kv = self._kv
        idle_bytes = self.capacity_bytes - self.stored_bytes - state_bytes
        if self._state_capacity is not None:
            idle_states = self._state_capacity - self.state_bytes - state_bytes
            idle_kv = self.capacity_bytes - self._state_capacity - kv.num_bytes
            idle_bytes = idle_kv if idle_states >= 0 else idle_states
        if idle_bytes < 0:
            return 0
        if not kv.segment_bytes:
            return num_tokens
        num_segments = resident_kv_tokens // kv.segment_tokens + idle_bytes // kv.segment_bytes
        # Of a segment that ends after the state nothing is stored.
        return min(num_tokens, (num_segments + 1) * kv.segment_tokens - 1)

    def can_hold(
        self, place: tuple[Node, int], num_bytes: int, *, pinned: Sequence[Checkpoint], prompt: SeenPrompt
    ) -> bool:
        """Return whether states of ``num_bytes`` and the KV before a place on the path of ``prompt`` fit
        beside what is pinned.
        """
        states = num_bytes + sum(checkpoint.num_bytes for checkpoint in pinned)
        if all(checkpoint.owner is prompt for checkpoint in pinned):
            # Everything pinned lies on this path.
            deepest = max((place[1], *(checkpoint.position for checkpoint in pinned)))
            kv = self._kv.bytes_before(deepest)
        else:
            kv = self._kv.needed_bytes((place, *((each.node, each.position) for each in pinned)))
        if self._state_capacity is None:
            return states + kv <= self.capacity_bytes
        return states <= self._state_capacity and kv <= self.capacity_bytes - self._state_capacity

    def can_hold_beside(self, pinned: Sequence[Checkpoint], num_bytes: int) -> bool:
        """Return whether ``num_bytes`` fit beside nothing but what is pinned, with its KV."""
        kv = self._kv.needed_bytes((each.node, each.position) for each in pinned)
        return kv + sum(each.num_bytes for each in pinned) + num_bytes <= self.capacity_bytes
