"""How much of the prompts each policy reused, against the memory it was given."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from milepost.report.amounts import memory, memory_in_words, percent
from milepost.report.figures.canvas import Drawing, Shape, quiet_axes
from milepost.report.figures.labels import abridged, broken, spread
from milepost.report.palette import COLOURS, Look, looks
from milepost.report.study import CLAIRVOYANT, TraceStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["frontier_drawing", "frontier_of"]

_TITLE = "Reuse against memory"
_ROOM_FOR_A_NUMBER = 0.16
_LABEL_CHARACTERS = 30
_NAME_CHARACTERS = 20


def frontier_drawing(study: TraceStudy) -> Drawing:
    """Return the figure: lines over several capacities, bars at a single one."""
    best = study.ranked()[0] if study.ranked() else study.at_focus(study.policies[0])
    given = memory_in_words(study.focus_kv_tokens, study.kv_bytes_per_token)
    described = (
        f"Share of prompt tokens reused by {len(study.policies)} policies at "
        f"{len(study.capacities_kv_tokens)} capacities. At {given} the "
        f"highest is {best.policy} with {percent(best.reused_fraction)}; the ceiling is "
        f"{percent(study.ceiling_fraction)}."
    )

    is_list = len(study.capacities_kv_tokens) == 1

    def height(shape: Shape) -> float:
        if is_list:
            return 1.2 + 0.34 * len(study.policies)
        return 3.4 + 0.17 * -(-len(study.policies) // 2) if shape.is_narrow else 4.6

    def draw(figure: "FigureBase", shape: Shape) -> None:
        axes = figure.subplots()
        if is_list:
            _draw_bars(axes, study)
            return
        looked = looks(study.policies)
        _draw_lines(axes, study, looked)
        if shape.is_narrow:
            figure.legend(loc="outside lower left", ncols=2)
        else:
            _label_ends(axes, study, looked)

    return Drawing("frontier", _TITLE, described, height, draw)


def frontier_of(study: TraceStudy) -> list[tuple[int, float]]:
    """Return the most that any competitor reused with at most each capacity."""
    competitors = [policy for policy in study.policies if policy != CLAIRVOYANT]
    frontier, best = [], 0.0
    for capacity in study.capacities_kv_tokens:
        best = max([best, *(study.result(policy, capacity).reused_fraction for policy in competitors)])
        frontier.append((capacity, best))
    return frontier


def _draw_lines(axes: "Axes", study: TraceStudy, looked: Mapping[str, Look]) -> None:
    num_policies = len(study.policies)
    capacities = study.capacities_kv_tokens
    frontier = frontier_of(study)
    if any(share for _, share in frontier):
        axes.plot(
            *zip(*frontier, strict=True),
            color=COLOURS["ink"].light,
            alpha=0.1,
            linewidth=13,
            zorder=1,
            solid_capstyle="round",
            solid_joinstyle="round",
        )
    for rank, policy in enumerate(study.policies):
        look = looked[policy]
        shares = [study.result(policy, capacity).reused_fraction for capacity in capacities]
        axes.plot(
            capacities,
            shares,
            color=look.colour,
            marker=look.marker,
            linestyle=look.dashes,
            markersize=5.5,
            markeredgecolor=COLOURS["ground"].light,
            markeredgewidth=0.8,
            zorder=3 + (num_policies - rank) / num_policies,
            label=abridged(policy, width=_NAME_CHARACTERS),
        )
    axes.set_xscale("log")
    _mark_capacities(axes, study)
    _limit_shares(axes, study)
    _draw_ceiling(axes, study, vertical=False)
    unit = "" if study.kv_bytes_per_token else ", in tokens of KV"
    axes.set_xlabel(f"memory for states and KV together{unit}")
    axes.set_ylabel("prompt tokens reused")
    quiet_axes(axes)


def _label_ends(axes: "Axes", study: TraceStudy, looked: Mapping[str, Look]) -> None:
    """Name each line at its right end."""
    last = study.capacities_kv_tokens[-1]
    low, high = axes.get_ylim()
    ends = [study.result(policy, last).reused_fraction for policy in study.policies]
    gap = (high - low) / 21
    places = spread(ends, gap=gap, low=low + gap / 2, high=high - gap / 2)
    for policy, end, place in zip(study.policies, ends, places, strict=True):
        colour = looked[policy].colour
        axes.annotate(
            f"{abridged(policy, width=_LABEL_CHARACTERS)}  {percent(end)}",
            xy=(last, end),
            xytext=(1.045, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            color=colour,
            fontweight="bold" if policy == study.policies[0] else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "alpha": 0.45,
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def _draw_bars(axes: "Axes", study: TraceStudy) -> None:
    """At one capacity a frontier is a list: the best on top."""
    runs = sorted((study.at_focus(policy) for policy in study.policies), key=lambda run: run.reused_tokens)
    top = max(study.ceiling_fraction, *(run.reused_fraction for run in runs), 0.05)
    looked = looks(study.policies)
    for row, run in enumerate(runs):
        look = looked[run.policy]
        known = run.policy == CLAIRVOYANT
        axes.barh(row, run.reused_fraction, height=0.62, color=look.colour, alpha=0.35 if known else 1.0)
        # Inside, where there is room: outside, the ceiling's line would run through it.
        inside = run.reused_fraction > _ROOM_FOR_A_NUMBER * top
        axes.annotate(
            percent(run.reused_fraction),
            (run.reused_fraction, row),
            xytext=(-5 if inside else 5, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            color=COLOURS["ground" if inside and not known else "ink"].light,
        )
    axes.set_yticks(range(len(runs)), [broken(run.policy, width=_NAME_CHARACTERS) for run in runs])
    axes.set_ylim(-0.6, len(runs) - 0.4)
    axes.set_xlim(0, min(1.0, top * 1.08) if top < 0.9 else 1.09)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, digits=0) if value <= 1.0001 else "")
    _draw_ceiling(axes, study, vertical=True)
    given = memory_in_words(study.focus_kv_tokens, study.kv_bytes_per_token)
    axes.set_xlabel(f"prompt tokens reused with {given}")
    quiet_axes(axes, grid="x")
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"].light)


def _mark_capacities(axes: "Axes", study: TraceStudy) -> None:
    from matplotlib.ticker import NullLocator

    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(
        study.capacities_kv_tokens,
        [memory(each, study.kv_bytes_per_token) for each in study.capacities_kv_tokens],
    )
    axes.set_xmargin(0.06)


def _limit_shares(axes: "Axes", study: TraceStudy) -> None:
    highest = max([study.ceiling_fraction, 0.05, *(run.reused_fraction for run in study.results)])
    axes.set_ylim(0, min(1.04, highest * 1.1))
    axes.yaxis.set_major_formatter(lambda value, _: percent(value, digits=0))


def _draw_ceiling(axes: "Axes", study: TraceStudy, *, vertical: bool) -> None:
    ceiling, muted = study.ceiling_fraction, COLOURS["muted"].light
    line = axes.axvline if vertical else axes.axhline
    line(ceiling, color=muted, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
    text = f"ceiling: endless memory, {percent(ceiling)}"
    if vertical:
        axes.annotate(
            text,
            (ceiling, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right" if ceiling > 0.5 * axes.get_xlim()[1] else "left",
            va="bottom",
            color=muted,
            fontsize="small",
        )
    else:
        axes.annotate(
            text,
            (0, ceiling),
            xycoords=("axes fraction", "data"),
            xytext=(2, 3),
            textcoords="offset points",
            va="bottom",
            color=muted,
            fontsize="small",
        )
