"""The figure of the ablation: a column a trace, a row a content and grid, a line a rule."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.drawing import draw_png
from benchmarks.policies.ablation import Ablation
from benchmarks.policies.granularity import COARSE, GridPoint
from benchmarks.policies.points import TRACES
from milepost.report.amounts import percent
from milepost.report.figures.canvas import Drawing, Shape, quiet_axes
from milepost.report.palette import COLOURS, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["draw_ablation"]

_STEM = "placement_and_eviction"
_HEADING = "For KV, LRU is nearly enough; for states it is not: share of what is reusable"
_LEARNED = "learned"
_INCHES_A_ROW = 1.75


def draw_ablation(kv_alone: Ablation, states: Ablation, *, folder: Path) -> Path:
    """Write the figure into ``folder``; return the PNG."""
    coarse = COARSE[0]
    panels = [
        ("KV alone", kv_alone, [point for point in kv_alone.points if point.is_own]),
        ("states at the\ntraces' own blocks", states, [point for point in states.points if point.is_own]),
        (f"states\nevery {coarse:,}", states, [point for point in states.points if point.grid == coarse]),
    ]

    def draw(figure: "FigureBase", shape: Shape) -> None:
        axes = figure.subplots(len(panels), len(TRACES), sharey=True, squeeze=False)
        for row, (title, ablation, points) in enumerate(panels):
            for column, trace in enumerate(TRACES):
                at = sorted(
                    (point for point in points if point.trace == trace.title),
                    key=lambda point: point.capacity_kv_tokens,
                )
                _draw_panel(axes[row][column], ablation, at)
                if row == 0:
                    axes[row][column].set_title(trace.title)
            axes[row][0].set_ylabel(title)
        handles, labels = axes[1][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))

    drawing = Drawing(
        _STEM,
        _HEADING,
        "Of the tokens that could be reused, the share that is, against memory, by trace and content.",
        lambda _: 0.7 + _INCHES_A_ROW * len(panels),
        draw,
    )
    return draw_png(drawing, folder)


def _draw_panel(axes: "Axes", ablation: Ablation, points: Sequence[GridPoint]) -> None:
    content = ablation.content
    names = {
        content.by_recency: "least recently used",
        content.by_worth: "same positions, learned eviction",
        _LEARNED: "learned positions and eviction",
    }
    colours = looks(["learned", "tail+junction", "tail+junction/learned"])
    look_of = {
        content.by_recency: colours["tail+junction"],
        content.by_worth: colours["tail+junction/learned"],
        _LEARNED: colours["learned"],
    }
    capacities = [str(point.capacity_kv_tokens) for point in points]
    for policy, name in names.items():
        look = look_of[policy]
        axes.plot(
            range(len(points)),
            [point.reused[policy] / point.ceiling_fraction for point in points],
            color=look.colour,
            marker=look.marker,
            markersize=5,
            markeredgecolor=COLOURS["ground"].light,
            markeredgewidth=0.8,
            label=name,
        )
    axes.set_xticks(range(len(capacities)), [_short(point.capacity_kv_tokens) for point in points])
    axes.set_xlim(-0.3, max(0.3, len(points) - 0.7))
    axes.set_ylim(0.0, 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: percent(value, digits=0))
    quiet_axes(axes)


def _short(tokens: int) -> str:
    return f"{tokens // 1_000_000}M" if tokens >= 1_000_000 else f"{tokens // 1_000}k"
