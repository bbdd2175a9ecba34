"""Where each policy put its checkpoints, on the same sample of prompts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from milepost.report.amounts import count, percent, short
from milepost.report.collect import SampledPrompt
from milepost.report.figures.canvas import Drawing, Shape, columns_for, quiet_axes
from milepost.report.figures.labels import broken
from milepost.report.palette import COLOURS, looks
from milepost.report.study import PolicyView, TraceStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["placements_drawing"]

_TITLE = "Where checkpoints were placed"
# Checkpoints closer than this share of the axis are one mark: dense ones would be a wall of ink.
_MARKS_ACROSS = 250
_ROW_INCHES = 0.128
_NAME_CHARACTERS = 28
_LONG_TAIL = 12.0
# Prompts shown of the sample, by the panels at most: a page of many policies must end somewhere.
_PROMPTS_BY_PANELS = ((3, 24), (6, 16))
_LEAST_PROMPTS = 12
_PART_WORDS = {
    "reused": "resumed",
    "eviction": "its state was dropped",
    "placement": "no state was placed there",
    "alignment": "off the grid",
    "unseen": "new: it diverged where this begins",
}


def placements_drawing(study: TraceStudy) -> Drawing:
    """Return the figure: for each policy the sampled prompts, and all its placements."""
    num_sampled = len(_shown(study, study.views[0], Shape.WIDE))
    means = "; ".join(
        f"{view.policy}: {study.at_focus(view.policy).mean_checkpoints_per_request:.2f}"
        for view in study.views
    )
    described = (
        f"The same {num_sampled} prompts under each policy, in order of arrival: the part resumed, the parts "
        f"computed again and why, the new part, and the checkpoints placed. Below, all "
        f"placements by their place in the prompt. Mean checkpoints stored per request: {means}."
    )

    def height(shape: Shape) -> float:
        num_rows = -(-len(study.views) // _num_columns(study, shape))
        num_shown = len(_shown(study, study.views[0], shape))
        return 0.7 + num_rows * (1.75 + _ROW_INCHES * num_shown)

    def draw(figure: "FigureBase", shape: Shape) -> None:
        num_columns = _num_columns(study, shape)
        num_rows = -(-len(study.views) // num_columns)
        num_shown = len(_shown(study, study.views[0], shape))
        ratios = [0.3 + _ROW_INCHES * num_shown, 0.55] * num_rows
        grid = figure.add_gridspec(2 * num_rows, num_columns, height_ratios=ratios)
        looked = looks(study.policies)
        for number, view in enumerate(study.views):
            row, column = divmod(number, num_columns)
            prompts = figure.add_subplot(grid[2 * row, column])
            _draw_prompts(prompts, _shown(study, view, shape), with_numbers=column == 0)
            prompts.set_title(broken(view.policy, width=_NAME_CHARACTERS), color=looked[view.policy].colour)
            if column == 0:
                prompts.set_ylabel("request")
            below = figure.add_subplot(grid[2 * row + 1, column])
            _draw_relative(below, view, looked[view.policy].colour, is_tight=num_columns > 3)
        _add_legend(figure, shape)

    return Drawing("placements", _TITLE, described, height, draw)


def _num_columns(study: TraceStudy, shape: Shape) -> int:
    return 1 if shape.is_narrow else columns_for(len(study.views))


def _shown(study: TraceStudy, view: PolicyView, shape: Shape) -> Sequence[SampledPrompt]:
    """Return as many of the sampled prompts as there is room for, the same for every policy."""
    prompts = view.sample.prompts
    fitting = (number for panels, number in _PROMPTS_BY_PANELS if len(study.views) <= panels)
    most = _LEAST_PROMPTS if shape.is_narrow else next(fitting, _LEAST_PROMPTS)
    shown = min(most, len(prompts))
    return [prompts[number * len(prompts) // shown] for number in range(shown)]


def _draw_prompts(axes: "Axes", prompts: Sequence[SampledPrompt], *, with_numbers: bool) -> None:
    lengths = [prompt.num_tokens for prompt in prompts]
    longest = max(lengths)
    # One prompt ten times as long as most would flatten all others.
    is_log = longest > _LONG_TAIL * float(np.median(lengths))
    least = max(1, min(lengths) // 8) if is_log else 0
    for row, prompt in enumerate(prompts):
        start = least
        for part, stop in _parts(prompt).items():
            if stop > start:
                colour = COLOURS[part].light
                axes.barh(row, stop - start, left=start, height=0.78, color=colour, linewidth=0)
                start = stop
    if is_log:
        axes.set_xscale("log")
        axes.set_xlim(least, longest * 1.1)
    else:
        axes.set_xlim(0, longest * 1.02)
    _mark_checkpoints(axes, prompts, longest)
    _show_positions(axes, is_log=is_log)
    axes.set_ylim(len(prompts) - 0.3, -0.7)
    axes.set_yticks(range(len(prompts)), [count(prompt.number) for prompt in prompts] if with_numbers else [])
    axes.tick_params(axis="y", labelsize="small")
    quiet_axes(axes, grid="x")


def _parts(prompt: SampledPrompt) -> dict[str, int]:
    """Return where each part of a prompt ends, by what became of it."""
    return {
        "reused": prompt.resume_position,
        "eviction": prompt.reached_position,
        "placement": prompt.usable_position,
        "alignment": prompt.overlap_depth,
        "unseen": prompt.num_tokens,
    }


def _mark_checkpoints(axes: "Axes", prompts: Sequence[SampledPrompt], longest: int) -> None:
    across, along = [], []
    for row, prompt in enumerate(prompts):
        placed = np.array(prompt.placed, np.float64)
        if placed.size:
            cells = np.floor(placed * _MARKS_ACROSS / longest)
            placed = placed[np.unique(cells, return_index=True)[1]]
        for position in placed:
            across += [position, position, np.nan]
            along += [row - 0.5, row + 0.5, np.nan]
    # The ground shows around each mark, so that marks stand out on every colour.
    axes.plot(across, along, color=COLOURS["ground"].light, linewidth=3.2, solid_capstyle="butt", zorder=3)
    axes.plot(across, along, color=COLOURS["ink"].light, linewidth=1.6, solid_capstyle="butt", zorder=4)


def _show_positions(axes: "Axes", *, is_log: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(
        LogLocator(numticks=6) if is_log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel("position in the prompt, tokens", labelpad=1.5)


def _draw_relative(axes: "Axes", view: PolicyView, colour: str, *, is_tight: bool) -> None:
    """Draw the shape of the distribution; its height says nothing, its number is in words."""
    counts = view.placed.counts
    edges = np.arange(len(counts)) / len(counts)
    axes.bar(edges, counts, width=0.9 / len(counts), align="edge", color=colour)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.08 * max(1, *counts))
    axes.set_xticks([0, 0.5, 1], ["start", "middle", "end"])
    first, _, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_yticks([])
    words = _relative_words(view)
    axes.set_xlabel(words.replace("; ", ",\n") if is_tight else words, labelpad=1.5)
    quiet_axes(axes, grid="x")


def _relative_words(view: PolicyView) -> str:
    if not view.placed.total:
        return "none placed"
    last = view.placed.counts[-1] / view.placed.total
    return f"all {short(view.placed.total)} placements; {percent(last, digits=0)} in the last twentieth"


def _add_legend(figure: "FigureBase", shape: Shape) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        *(Patch(color=COLOURS[part].light, label=words) for part, words in _PART_WORDS.items()),
        Line2D(
            [],
            [],
            color=COLOURS["ink"].light,
            linewidth=1.8,
            marker="|",
            markersize=9,
            markeredgewidth=1.8,
            linestyle="none",
            label="checkpoint placed",
        ),
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=2 if shape.is_narrow else 3, handlelength=0.9
    )
