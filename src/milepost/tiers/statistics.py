"""What each tier of a chain holds, and what it was good for."""

from dataclasses import dataclass, replace
from typing import Self, final

from milepost.accounting import CacheStatistics

__all__ = ["TierStatistics", "Traffic"]


@final
@dataclass(slots=True)
class Traffic:
    """Running totals of one slower tier.

    Attributes:
        num_hits: Requests that resumed from what it gave back.
        reused_tokens: Tokens that they were spared beyond what faster tiers had.
        num_fetches: Times that it was read.
        fetched_bytes: Of the payloads, as they are in memory.
        fetch_seconds: What that took.
        num_declined: Times that computing was found to take less.
        num_without_room: Times that no faster tier had room beside what was in use.
        num_damaged: Payloads that could not be read back.
        num_lost: Payloads that could not be kept.
    """

    num_hits: int = 0
    reused_tokens: int = 0
    num_fetches: int = 0
    fetched_bytes: int = 0
    fetch_seconds: float = 0.0
    num_declined: int = 0
    num_without_room: int = 0
    num_damaged: int = 0
    num_lost: int = 0

    def note_fetch(self, num_bytes: int, seconds: float) -> None:
        """Count a read."""
        self.num_fetches += 1
        self.fetched_bytes += num_bytes
        self.fetch_seconds += seconds

    def note_hit(self, num_tokens: int) -> None:
        """Count a request that resumed ``num_tokens`` deeper than it would have."""
        self.num_hits += 1
        self.reused_tokens += num_tokens


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TierStatistics:
    """One tier, now and so far.

    Attributes:
        name: Of the tier.
        capacity_bytes: What it may hold, in bytes as in memory: where it is compressed, more than it takes.
        checkpoint_bytes: States that it holds, as in memory.
        kv_bytes: KV that it holds, as in memory.
        stored_bytes: What both take there.
        num_checkpoints: States that it holds.
        num_evictions: States that had to go.
        traffic: What it was good for so far; of the fastest tier, hits and tokens alone.
    """

    name: str
    capacity_bytes: int
    checkpoint_bytes: int
    kv_bytes: int
    stored_bytes: int
    num_checkpoints: int
    num_evictions: int
    traffic: Traffic

    @classmethod
    def of(
        cls, name: str, held: CacheStatistics, traffic: Traffic, *, stored_bytes: int | None = None
    ) -> Self:
        """Return them of a cache that holds ``held``; ``stored_bytes`` as in memory unless given."""
        in_memory = held.checkpoint_bytes + held.kv_bytes
        return cls(
            name=name,
            capacity_bytes=held.capacity_bytes,
            checkpoint_bytes=held.checkpoint_bytes,
            kv_bytes=held.kv_bytes,
            stored_bytes=in_memory if stored_bytes is None else stored_bytes,
            num_checkpoints=held.num_checkpoints,
            num_evictions=held.num_evictions,
            traffic=replace(traffic),
        )
