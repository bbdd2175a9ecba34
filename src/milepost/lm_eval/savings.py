"""What an evaluation saved: tokens computed, beside those that its requests take one by one."""

from dataclasses import asdict, dataclass
from typing import Any

from milepost.accounting import RequestReport

__all__ = ["Savings"]


@dataclass(slots=True, kw_only=True)
class Savings:
    """Running sums over the requests of one model.

    Attributes:
        num_requests: Continuations scored, windows of texts, and answers.
        num_contexts: Different contexts among them, as they were asked for together.
        separate_tokens: Tokens that the requests have: computed, where each is run alone.
        computed_tokens: Tokens that were computed.
        resumed_tokens: Tokens of contexts that stored states stood for.
    """

    num_requests: int = 0
    num_contexts: int = 0
    separate_tokens: int = 0
    computed_tokens: int = 0
    resumed_tokens: int = 0

    def add(
        self, report: RequestReport, *, num_requests: int, separate_tokens: int, continuation_tokens: int
    ) -> None:
        """Count one context.

        Args:
            report: Where its tokens went.
            num_requests: Requests that were answered with it.
            separate_tokens: Tokens of all of them.
            continuation_tokens: Tokens computed after it.
        """
        self.num_requests += num_requests
        self.num_contexts += 1
        self.separate_tokens += separate_tokens
        self.computed_tokens += report.recomputed + continuation_tokens
        self.resumed_tokens += report.reused

    def as_dict(self) -> dict[str, Any]:
        """Return the sums by name."""
        return asdict(self)

    @property
    def text(self) -> str:
        """One line for people."""
        if not self.computed_tokens:
            return "milepost: nothing was computed"
        times = self.separate_tokens / self.computed_tokens
        return (
            f"milepost: {self.num_requests:,} requests on {self.num_contexts:,} contexts; computed "
            f"{self.computed_tokens:,} of the {self.separate_tokens:,} tokens that they take one by one, "
            f"{times:.1f} times fewer; stored states stood for {self.resumed_tokens:,}"
        )
