"""The two figures of the method's paper, of measured runs: what memory saves, and what it costs in time."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from milepost.byte_size import format_bytes
from milepost.report.amounts import percent
from milepost.report.figures.canvas import Drawing, Shape, quiet_axes
from milepost.report.figures.labels import abridged
from milepost.report.frontier_file import MeasuredFrontier, MeasuredRun
from milepost.report.palette import COLOURS, Look, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["saved_drawing", "time_drawing"]

_NAME_CHARACTERS = 24


def saved_drawing(measured: MeasuredFrontier) -> Drawing:
    """Return the figure of the share of prompt tokens saved, against checkpoints held for a prompt."""
    best = max(measured.runs, key=lambda run: run.saved_fraction)
    return Drawing(
        "saved",
        "Tokens saved by the checkpoints that are held",
        f"{measured.model}. {best.policy} saves most, {percent(best.saved_fraction)} of the prompt tokens, "
        f"with {best.checkpoints_per_entry:.1f} checkpoints held for a prompt.",
        _height,
        lambda figure, shape: _draw(
            figure,
            shape,
            measured,
            across=lambda run: run.checkpoints_per_entry,
            up=lambda run: run.saved_fraction,
            labels=("checkpoints held for a prompt, on average", "prompt tokens saved"),
            spans=None,
        ),
    )


def time_drawing(measured: MeasuredFrontier) -> Drawing:
    """Return the figure of total time, capture included, over that without a cache, against memory."""
    best = min(measured.runs, key=lambda run: run.off_ratio)
    return Drawing(
        "time",
        "Time to first tokens, capture included, against memory",
        f"{measured.model}. {best.policy} is fastest: {best.off_ratio:.2f} of the time without a cache, with "
        f"{format_bytes(best.capacity_bytes)}.",
        _height,
        lambda figure, shape: _draw(
            figure,
            shape,
            measured,
            across=lambda run: run.capacity_bytes / 1e6,
            up=lambda run: run.off_ratio,
            labels=("memory for states and KV together, MB", "time over that without a cache"),
            spans=lambda run: (min(run.off_ratios), max(run.off_ratios)),
        ),
    )


def _height(shape: Shape) -> float:
    return 4.4 if shape.is_narrow else 4.2


def _draw(
    figure: "FigureBase",
    shape: Shape,
    measured: MeasuredFrontier,
    *,
    across: Callable[[MeasuredRun], float],
    up: Callable[[MeasuredRun], float],
    labels: tuple[str, str],
    spans: Callable[[MeasuredRun], tuple[float, float]] | None,
) -> None:
    axes = figure.subplots()
    looked: Mapping[str, Look] = looks(measured.policies)
    for policy in measured.policies:
        runs, look = measured.of(policy), looked[policy]
        axes.plot(
            [across(run) for run in runs],
            [up(run) for run in runs],
            color=look.colour,
            marker=look.marker,
            linestyle=look.dashes,
            markersize=5.5,
            markeredgecolor=COLOURS["ground"].light,
            markeredgewidth=0.8,
            label=abridged(policy, width=_NAME_CHARACTERS),
        )
        if spans is not None:
            for run in runs:
                axes.plot([across(run)] * 2, spans(run), color=look.colour, alpha=0.4, linewidth=1.0)
    _finish(axes, labels)
    if shape.is_narrow:
        figure.legend(loc="outside lower left", ncols=2)
    else:
        figure.legend(loc="outside right upper")


def _finish(axes: "Axes", labels: tuple[str, str]) -> None:
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_ylim(bottom=0)
    quiet_axes(axes)
