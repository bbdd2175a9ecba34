"""What the plugin is to reach, and what a comparison says of it: one row a claim."""

import math
from collections.abc import Iterator, Sequence

from benchmarks.printing import Row
from benchmarks.vllm.comparing.comparison import Comparison
from benchmarks.vllm.comparing.run import Measurement
from benchmarks.vllm.servers.settings import MILEPOST

__all__ = ["rows"]

_LEAST_OVER_STOCK = {"documents": 2.5, "chat": 1.0}
_LEAST_OVER_BEST = 1.15
_LEAST_FRACTION = {"system-prompt": 0.75}
_LEAST_THROUGHPUT = {"unique": 0.98}
# Where there is memory for everything, nothing can be gained by choosing; what is measured is what it costs.
_HAS_ROOM_FOR_ALL = ("documents-ample",)


def rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """Return what holds and what does not; nothing where the plugin has not run."""
    return [
        row
        for comparison in comparisons
        if comparison.plugin is not None
        for row in _rows(comparison, comparison.plugin)
    ]


def _rows(comparison: Comparison, plugin: Measurement) -> Iterator[Row]:
    name = comparison.workload.name
    stock, best = comparison.stock, comparison.best_stock
    of = f"{name}, {comparison.concurrency} at a time"
    if name in _LEAST_OVER_STOCK:
        yield _at_least(f"{of}: cached / stock", _ratio(plugin, stock), _LEAST_OVER_STOCK[name])
    if comparison.workload.shares_prefixes and name not in _HAS_ROOM_FOR_ALL:
        yield _at_least(
            f"{of}: cached / best of stock ({best.setting})", _ratio(plugin, best), _LEAST_OVER_BEST
        )
    if name in _LEAST_FRACTION:
        yield _at_least(f"{of}: cached / shareable", plugin.cached_fraction, _LEAST_FRACTION[name])
    if name in _LEAST_THROUGHPUT:
        ratio = comparison.throughput_ratio(MILEPOST.label)
        yield _at_least(f"{of}: tokens a CPU second / stock", ratio, _LEAST_THROUGHPUT[name])
    if comparison.concurrency == 1:
        yield _extra_chunks(of, plugin)
    yield _identical(of, comparison, plugin)


def _ratio(ours: Measurement, theirs: Measurement) -> float:
    if theirs.cached_tokens:
        return ours.cached_tokens / theirs.cached_tokens
    return float("inf") if ours.cached_tokens else 1.0


def _at_least(name: str, value: float, least: float) -> Row:
    return Row(
        name=name,
        measured=f"{value:.2f}",
        target=f">= {least}",
        reached=value >= least,
        numbers={"value": value},
    )


def _extra_chunks(of: str, plugin: Measurement) -> Row:
    extra = plugin.num_prefill_chunks - plugin.least_prefill_chunks
    return Row(
        name=f"{of}: extra prefill chunks / states kept",
        measured=f"{extra} / {plugin.num_states_kept}",
        target="<= 1",
        reached=extra <= plugin.num_states_kept,
        numbers={"extra_chunks": extra, "states_kept": plugin.num_states_kept},
    )


def _identical(of: str, comparison: Comparison, plugin: Measurement) -> Row:
    """Near-ties of two tokens may flip, but no more often than between two runs of stock vLLM."""
    flips, compared = plugin.flips_from(comparison.stock)
    of_stock = [control.flips_from(comparison.stock) for control in comparison.controls]
    expected = compared * max(flips / max(compared, 1) for flips, compared in of_stock)
    # Both numbers come by chance.
    limit = expected + 2 * math.sqrt(2 * max(expected, 1))
    shown = ", ".join(f"{flips} of {compared}" for flips, compared in of_stock)
    return Row(
        name=f"{of}: answers to the same prompt that differ from stock's",
        measured=f"{flips} of {compared}",
        target=f"<= {limit:.0f} (two runs of stock: {shown})",
        reached=flips <= limit,
        numbers={"flips": flips, "compared": compared, "limit": limit},
    )
