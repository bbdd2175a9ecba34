"""The policy of the paper: a histogram of overlap depths, and the exact planner at M per prompt."""

from typing import final

import numpy as np

from milepost.counts import as_count, as_number
from milepost.overlap import DecayedHistogram
from milepost.placement.admissible import admissible
from milepost.placement.base import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.heuristics import balanced_positions
from milepost.placement.hull import fill_budget_layers
from milepost.placement.planner import plan_budgets

__all__ = ["HistogramDP"]

# Bins kept; at 64 tokens each this covers prompts of a million tokens without merging.
_MAX_SUPPORT = 1 << 14


@final
class HistogramDP(PlacementPolicy):
    """``count`` checkpoints per prompt, planned exactly for the overlaps seen lately (arXiv 2605.05219).

    The baseline that the learned policy is measured against, as in the authors' runs: depths from the start
    only, in bins, each request fading the ones before it by ``decay``, and every bin up to the deepest one
    seen raised by ``smoothing``. A prompt is planned as a whole, over the depths that it reaches; what lies
    at or before the resume position is dropped. Before any overlap has been seen, the placement is balanced,
    as it is theirs. Unlike theirs, the budget is not lost to position 0 and repeats, and plans are never
    stale.

    Args:
        count: Checkpoints per prompt.
        decay: What one request leaves of the weight of all before it.
        smoothing: Weight added to each bin up to the deepest one seen; the authors' runs added none.
        bin_tokens: Width of a bin.
    """

    __slots__ = ("_bin_tokens", "_count", "_histogram", "_smoothing")

    def __init__(
        self, *, count: int, decay: float = 0.99, smoothing: float = 0.0, bin_tokens: int = 64
    ) -> None:
        self._count = as_count("count", count, least=1)
        self._smoothing = as_number("smoothing", smoothing)
        self._bin_tokens = as_count("bin_tokens", bin_tokens, least=1)
        decay = as_number("decay", decay)
        # Before the first request, so that it does not wait for the compiler.
        fill_budget_layers.compiled()
        self._histogram = DecayedHistogram(decay=decay, max_support=_MAX_SUPPORT)

    def observe(self, request: PlacementRequest) -> None:
        """Count one overlap depth. O(bins)."""
        self._histogram.fade()
        if request.overlap_depth >= self._bin_tokens:
            self._histogram.add(request.overlap_depth // self._bin_tokens * self._bin_tokens, 1.0)

    def place(self, request: PlacementRequest) -> Placement:
        """Return the planned positions beyond the resume position. O(bins * count)."""
        count = min(self._count, request.max_checkpoints)
        seen = self._histogram.values
        if seen.size == 0:
            return admissible(request, balanced_positions(request.num_tokens, grid=request.grid, count=count))
        depths = np.arange(self._bin_tokens, int(seen[-1]) + 1, self._bin_tokens)
        weights = np.full(depths.size, float(self._smoothing))
        weights[-1] = 0.0
        weights[seen // self._bin_tokens - 1] += self._histogram.weights
        reached = request.num_tokens // self._bin_tokens
        plans = plan_budgets(depths[:reached], weights[:reached], max_budget=count, grid=request.grid)
        return admissible(request, plans.placement(count).positions)
