"""Where every prompt token went: reused, or recomputed for one of four reasons."""

from dataclasses import dataclass, fields

__all__ = ["CacheStatistics", "Ledger", "RequestReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport:
    """Where the tokens of one prompt went; the five parts add up to ``num_tokens``."""

    num_tokens: int
    reused: int
    unseen: int
    alignment: int
    placement: int
    eviction: int
    checkpoints_stored: int
    checkpoints_rejected: int

    @property
    def recomputed(self) -> int:
        """Tokens that were run through the model."""
        return self.num_tokens - self.reused


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """Totals over all committed requests, and what is stored now."""

    num_requests: int
    num_tokens: int
    reused: int
    unseen: int
    alignment: int
    placement: int
    eviction: int
    checkpoints_stored: int
    checkpoints_rejected: int
    num_checkpoints: int
    num_evictions: int
    checkpoint_bytes: int
    kv_bytes: int
    capacity_bytes: int
    history_tokens: int

    @property
    def reused_fraction(self) -> float:
        """Share of all prompt tokens that were resumed instead of recomputed."""
        return self.reused / self.num_tokens if self.num_tokens else 0.0


class Ledger:
    """Running sums of the fields of :class:`RequestReport`."""

    def __init__(self) -> None:
        self.num_requests = 0
        self._sums = dict.fromkeys((field.name for field in fields(RequestReport)), 0)

    def add(self, report: RequestReport) -> None:
        """Count one more request."""
        self.num_requests += 1
        for name in self._sums:
            self._sums[name] += getattr(report, name)

    def as_dict(self) -> dict[str, int]:
        """Return the sums by name, with the number of requests."""
        return {"num_requests": self.num_requests, **self._sums}
