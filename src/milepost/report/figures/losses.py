"""What became of the prompt tokens as time went by: reused, or lost and to what."""

from typing import TYPE_CHECKING

import numpy as np

from milepost.report.amounts import percent, short
from milepost.report.collect import LossWindows
from milepost.report.figures.canvas import Drawing, Shape, columns_for, quiet_axes
from milepost.report.figures.labels import broken
from milepost.report.palette import COLOURS, PARTS, looks
from milepost.report.study import TraceStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["losses_drawing"]

# Of the narrowest panel.
_TITLE_CHARACTERS = 28
_TITLE = "What was lost to what, over time"


def losses_drawing(study: TraceStudy) -> Drawing:
    """Return the figure: for each policy the five parts of all tokens, window by window of requests."""
    losses = study.views[0].losses
    described = (
        f"Stacked areas of the shares of prompt tokens in {len(losses.windows)} windows of "
        f"{losses.window_requests} requests, for each policy. Over all requests: "
        + "; ".join(f"{view.policy} {_in_words(view.losses)}" for view in study.views)
        + "."
    )

    def height(shape: Shape) -> float:
        num_rows = -(-len(study.views) // _num_columns(study, shape))
        return 0.75 + num_rows * (1.9 if shape.is_narrow else 2.35)

    def draw(figure: "FigureBase", shape: Shape) -> None:
        num_columns = _num_columns(study, shape)
        num_rows = -(-len(study.views) // num_columns)
        grid = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
        looked = looks(study.policies)
        for number, axes in enumerate(grid.flat):
            if number >= len(study.views):
                axes.set_visible(False)
                continue
            view = study.views[number]
            _draw_parts(axes, view.losses)
            reused = study.at_focus(view.policy).reused_fraction
            title = broken(f"{view.policy}: {percent(reused)} reused", width=_TITLE_CHARACTERS)
            axes.set_title(title, color=looked[view.policy].colour)
            if number + num_columns >= len(study.views):
                axes.set_xlabel("request")
        _add_legend(figure, study, shape)

    return Drawing("losses", _TITLE, described, height, draw)


def _num_columns(study: TraceStudy, shape: Shape) -> int:
    return 1 if shape.is_narrow else columns_for(len(study.views))


def _draw_parts(axes: "Axes", losses: LossWindows) -> None:
    """Draw each window as a step as wide as it has requests, not a slope that nobody measured."""
    windows = losses.windows
    edges = [window.first_request for window in windows]
    edges.append(windows[-1].first_request + windows[-1].num_requests)
    base = np.zeros(len(edges))
    for part in PARTS:
        shares = [window.share(part) for window in windows]
        top = base + np.array([*shares, shares[-1]])
        axes.fill_between(edges, base, top, step="post", color=COLOURS[part].light, linewidth=0)
        base = top
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    _show_requests(axes)
    quiet_axes(axes, grid="y")
    axes.spines["bottom"].set_visible(False)


def _show_requests(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _add_legend(figure: "FigureBase", study: TraceStudy, shape: Shape) -> None:
    from matplotlib.patches import Patch

    totals = [view.losses.total() for view in study.views]
    # From top to bottom as they are stacked, without what nobody lost.
    handles = [
        Patch(color=COLOURS[part].light, label=words)
        for part, words in reversed(PARTS.items())
        if any(total.share(part) for total in totals)
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=2 if shape.is_narrow else 5, handlelength=0.9
    )


def _in_words(losses: LossWindows) -> str:
    total = losses.total()
    return ", ".join(f"{part} {percent(total.share(part))}" for part in PARTS)
