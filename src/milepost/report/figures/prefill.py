"""How long the first token waits for its prompt, policy by policy."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from milepost.report.amounts import prefill_cost
from milepost.report.collect import LogHistogram, PrefillEstimates, PrefillSummary
from milepost.report.figures.canvas import Drawing, Shape, quiet_axes
from milepost.report.figures.labels import broken
from milepost.report.palette import COLOURS, looks
from milepost.report.study import TraceStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["AXIS_WORDS", "TITLES", "prefill_drawing"]

#: What the estimates are of, by the cost's unit.
TITLES = {
    "seconds": "Time to the first token",
    "flops": "Work before the first token",
    "tokens": "Tokens computed before the first token",
}
AXIS_WORDS = {
    "seconds": "estimated prefill time",
    "flops": "FLOPs of the prefill",
    "tokens": "tokens of the prefill",
}
_SMOOTH_BINS = 16
_NAME_CHARACTERS = 20


def prefill_drawing(study: TraceStudy) -> Drawing:
    """Return the figure: the distribution of prefill costs for each policy, with its p50 and p95."""
    unit = study.cold.cost.unit
    rows = study.prefills
    described = f"Distribution of the {AXIS_WORDS[unit]} over all requests. " + "; ".join(
        f"{name}: p50 {prefill_cost(estimates.summary().p50, unit)}, "
        f"p95 {prefill_cost(estimates.summary().p95, unit)}"
        for name, estimates in rows
    )

    def height(shape: Shape) -> float:
        return 1.15 + (0.62 if shape.is_narrow else 0.56) * len(rows)

    def draw(figure: "FigureBase", shape: Shape) -> None:
        axes = figure.subplots()
        looked = looks(study.policies)
        colours = [
            looked[name].colour if name in study.policies else COLOURS["muted"].light for name, _ in rows
        ]
        for row, ((_, estimates), colour) in enumerate(zip(rows, colours, strict=True)):
            _draw_distribution(axes, estimates, row=row, colour=colour)
        _draw_reference(axes, study.cold)
        axes.set_xscale("log")
        _show_costs(axes, unit, rows=[estimates for _, estimates in rows], shape=shape)
        axes.set_yticks(range(len(rows)), [broken(name, width=_NAME_CHARACTERS) for name, _ in rows])
        for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
            label.set_color(colour)
        axes.set_ylim(len(rows) - 0.55, -0.85)
        axes.set_xlabel(f"{AXIS_WORDS[unit]} (log scale)")
        quiet_axes(axes, grid="x")
        _add_legend(figure)

    return Drawing("prefill", TITLES[unit], described + ".", height, draw)


def _draw_distribution(axes: "Axes", estimates: PrefillEstimates, *, row: int, colour: str) -> None:
    costs, density = _density(estimates.histogram)
    if density.size:
        axes.fill_between(costs, row, row - 0.62 * density, color=colour, alpha=0.32, linewidth=0)
        axes.plot(costs, row - 0.62 * density, color=colour, linewidth=1.0)
    summary = estimates.summary()
    axes.plot([summary.p50, summary.p95], [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
    axes.plot(
        [summary.p50], [row], marker="o", markersize=7, color=colour, markeredgecolor=COLOURS["ground"].light
    )
    axes.plot(
        [summary.p95],
        [row],
        marker="D",
        markersize=5.5,
        color=colour,
        markeredgecolor=COLOURS["ground"].light,
    )
    unit = estimates.cost.unit
    # Below the line, where no curve is, and away from each other.
    for amount, place, offset in _labels(summary):
        axes.annotate(
            _number(amount, unit),
            (amount, row),
            xytext=(offset, -6),
            textcoords="offset points",
            ha=place,
            va="top",
            fontsize="small",
            # The line of the median without a cache does not run through a number.
            bbox={"facecolor": COLOURS["ground"].light, "edgecolor": "none", "pad": 0.4},
        )


def _labels(summary: PrefillSummary) -> list[tuple[float, Literal["left", "center", "right"], int]]:
    """Return each number, on which side of its mark it goes, and how far; the same number only once."""
    if summary.p95 < summary.p50 * 1.01:
        return [(summary.p50, "center", 0)]
    # Under their marks where there is room, else back to back.
    inward = 4 if summary.p95 > summary.p50 * 2 else -1
    return [(summary.p50, "right", inward), (summary.p95, "left", -inward)]


def _number(amount: float, unit: str) -> str:
    # The axis says what is counted.
    return prefill_cost(amount, unit).removesuffix(" tokens")


def _density(histogram: LogHistogram) -> tuple["np.ndarray[tuple[int], np.dtype[np.float64]]", ...]:
    """Return costs and the density of requests over their logarithm, smoothed, its highest 1."""
    counts = histogram.counts_by_index()
    if not counts:
        return np.empty(0), np.empty(0)
    first, last = min(counts) - 2 * _SMOOTH_BINS, max(counts) + 2 * _SMOOTH_BINS
    dense = np.zeros(last - first + 1)
    for index, number in counts.items():
        dense[index - first] = number
    reach = np.arange(-2 * _SMOOTH_BINS, 2 * _SMOOTH_BINS + 1)
    kernel = np.exp(-0.5 * (reach / (0.5 * _SMOOTH_BINS)) ** 2)
    smooth = np.convolve(dense, kernel, mode="same")
    # Every fourth bin draws the same curve.
    chosen = slice(None, None, 4)
    costs = 2.0 ** ((np.arange(first, last + 1) + 0.5) / histogram.bins_per_octave)
    return costs[chosen], smooth[chosen] / smooth.max()


def _draw_reference(axes: "Axes", cold: PrefillEstimates) -> None:
    axes.axvline(
        cold.summary().p50, color=COLOURS["muted"].light, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1
    )


def _show_costs(axes: "Axes", unit: str, *, rows: list[PrefillEstimates], shape: Shape) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low = min(estimates.histogram.quantile(0.005) for estimates in rows)
    high = max(estimates.histogram.quantile(0.995) for estimates in rows)
    # Room for the numbers beside the outermost points.
    room = 3.0 if shape.is_narrow else 1.6
    axes.set_xlim(low / room, high * room)
    decades = np.log10(high * room) - np.log10(low / room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.2 else (1.0, 3.0), numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, unit)))


def _add_legend(figure: "FigureBase") -> None:
    from matplotlib.lines import Line2D

    ink = COLOURS["muted"].light
    handles = [
        Line2D(
            [], [], color=ink, marker="o", markersize=6, linestyle="none", label="half of the requests (p50)"
        ),
        Line2D([], [], color=ink, marker="D", markersize=5, linestyle="none", label="19 of 20 (p95)"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=0.9)
