"""Where every prompt token went: reused, or recomputed for one of five reasons."""

from dataclasses import dataclass, fields

__all__ = ["CacheStatistics", "Ledger", "RequestReport", "TokenAccount"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAccount:
    """Prompt tokens by what became of them; the six parts add up to ``num_tokens``.

    Attributes:
        num_tokens: Tokens of the prompts.
        reused: Not computed again.
        unseen: No earlier prompt had them.
        alignment: After the last grid position that could be resumed from.
        placement: No checkpoint was ever stored there.
        eviction: A checkpoint was there and was dropped.
        reset: A checkpoint was there, and went when the whole cache was emptied, or with an earlier process.
        checkpoints_stored: Captured checkpoints that are stored, by this request or by one before it.
        checkpoints_rejected: Captured checkpoints that the budget could not hold beside what is in use.
        checkpoints_pinned: Those at the pins of the prompts, kept for the time asked.
        checkpoints_unpinned: Pins that had to be let go before their time, the oldest first, since all
            together took more than half of the budget.
    """

    num_tokens: int
    reused: int
    unseen: int
    alignment: int
    placement: int
    eviction: int
    checkpoints_stored: int
    checkpoints_rejected: int
    reset: int = 0
    checkpoints_pinned: int = 0
    checkpoints_unpinned: int = 0

    @property
    def recomputed(self) -> int:
        """Tokens that were run through the model."""
        return self.num_tokens - self.reused

    @property
    def reused_fraction(self) -> float:
        """Share of the prompt tokens that were resumed instead of recomputed."""
        return self.reused / self.num_tokens if self.num_tokens else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReport(TokenAccount):
    """The account of one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics(TokenAccount):
    """The account of all committed requests, and what is stored now."""

    num_requests: int
    num_hits: int
    num_checkpoints: int
    num_evictions: int
    checkpoint_bytes: int
    kv_bytes: int
    capacity_bytes: int
    history_tokens: int


class Ledger:
    """Running sums of the fields of :class:`TokenAccount`."""

    def __init__(self) -> None:
        self.num_requests = self.num_hits = 0
        self._sums = dict.fromkeys((field.name for field in fields(TokenAccount)), 0)

    def add(self, account: TokenAccount) -> None:
        """Count one more request."""
        self.num_requests += 1
        self.num_hits += account.reused > 0
        for name in self._sums:
            self._sums[name] += getattr(account, name)

    def as_dict(self) -> dict[str, int]:
        """Return the sums by name, with the number of requests, and of those that resumed."""
        return {"num_requests": self.num_requests, "num_hits": self.num_hits, **self._sums}
