"""The paper's placement as its runs had it, beside ours (:class:`milepost.placement.HistogramDP`).

The planner is the same one; what differs is when and for whom it plans, and that moves both columns of the
table:

* there is one plan for the longest prompt allowed, of which each prompt keeps the positions that it
  reaches, so that an entry has fewer than M (``adaptive_backtrack: False``); ours plans M for each prompt,
  over the depths that it reaches;
* the plan is made anew after every ten requests; ours is never stale;
* until the warm-up ends there is no plan, and entries are balanced.

Source: ``conf/config.yaml``, ``conf/strategy/hist_exp_decay.yaml`` and ``spase_cache/strategies.py`` of
arabel1a/sparse-prefix-caching, commit e5cdcde.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import final

from milepost.overlap import DecayedHistogram
from milepost.placement import Placement, PlacementPolicy, PlacementRequest, plan_budgets
from milepost.placement.admissible import admissible

__all__ = ["PublishedDP", "read_histogram"]

_BIN_TOKENS = 64
_DECAY = 0.99
_REPLAN_EVERY = 10
_LONGEST_PROMPT = 16_384


@final
class PublishedDP(PlacementPolicy):
    """At most ``count`` positions, one plan for prompts of all lengths.

    Args:
        count: Checkpoints of the longest prompt.
        histogram: Weights by overlap depth that were learned before, if known.
    """

    def __init__(self, count: int, histogram: Iterable[tuple[int, float]] = ()) -> None:
        self._count = count
        self._histogram = DecayedHistogram(decay=_DECAY, max_support=_LONGEST_PROMPT // _BIN_TOKENS)
        self._num_observed = 0
        self._plan: tuple[int, ...] = ()
        for depth, weight in histogram:
            self._histogram.add(depth, weight)
        self.replan()

    def observe(self, request: PlacementRequest) -> None:
        """Count one overlap depth; plan anew if it is time, or if nothing was known yet."""
        self._histogram.fade()
        depth = min(request.overlap_depth, _LONGEST_PROMPT) // _BIN_TOKENS * _BIN_TOKENS
        if depth:
            self._histogram.add(depth, 1.0)
        self._num_observed += 1
        if self._num_observed % _REPLAN_EVERY == 0 or not self._plan:
            self.replan()

    def replan(self) -> None:
        """Plan for what was seen so far."""
        histogram = self._histogram
        if histogram.values.size:
            plans = plan_budgets(histogram.values, histogram.weights, max_budget=self._count)
            self._plan = plans.placement(self._count).positions

    def place(self, request: PlacementRequest) -> Placement:
        """Return the positions of the plan that the prompt reaches."""
        return admissible(request, self._plan)


def read_histogram(path: Path) -> list[tuple[int, float]]:
    """Return the weights by overlap depth when a logged run began, from its ``*_histograms.json``."""
    record = json.loads(path.read_text(encoding="utf-8"))
    counts, width = record["histogram_log"][0]["counts"], record["bin_size"]
    return [(index * width, weight) for index, weight in enumerate(counts) if index and weight > 0.0]
