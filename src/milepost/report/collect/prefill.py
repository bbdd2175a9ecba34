"""What each request's prefill costs before its first token, from F(p) and where it resumed."""

from dataclasses import dataclass
from typing import final

from milepost.accounting import RequestReport
from milepost.footprint import PrefillCost
from milepost.report.collect.log_histogram import LogHistogram

__all__ = ["PrefillEstimates", "PrefillSummary"]

# A bin is 1.1 % wide, so a quantile is known to that.
_BINS_PER_OCTAVE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillSummary:
    """Half of the requests cost at most ``p50``; in the cost's unit."""

    p50: float
    p95: float
    mean: float


@final
class PrefillEstimates:
    """Prefill costs of all requests: ``F(L) - F(c)``, and what any pass costs.

    Args:
        cost: F(p) in tokens, FLOPs or seconds.
        is_cold: Estimate the same requests as if each were computed from its first token.
    """

    def __init__(self, cost: PrefillCost, *, is_cold: bool = False) -> None:
        self.cost = cost
        self.histogram = LogHistogram(bins_per_octave=_BINS_PER_OCTAVE)
        self._is_cold = is_cold
        self._sum = 0.0

    def add(self, report: RequestReport) -> None:
        """Count one request. O(1)."""
        resumed = 0 if self._is_cold else report.reused
        spent = self.cost.between(resumed, report.num_tokens) + self.cost.fixed_per_pass
        self.histogram.add(spent)
        self._sum += spent

    def summary(self) -> PrefillSummary:
        """Return the median, the 95th percentile and the mean."""
        total = self.histogram.total
        return PrefillSummary(
            p50=self.histogram.quantile(0.5),
            p95=self.histogram.quantile(0.95),
            mean=self._sum / total if total else 0.0,
        )
