"""Where requests stop following earlier prompts: the evidence that placement can rest on."""

from typing import TYPE_CHECKING

from milepost.report.amounts import count, percent, short
from milepost.report.collect import PARTING_ORDINALS, LogHistogram, OverlapEnd, OverlapEnds
from milepost.report.figures.canvas import Drawing, Shape, quiet_axes
from milepost.report.palette import COLOURS
from milepost.report.study import TraceStudy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

__all__ = ["KIND_WORDS", "overlaps_drawing"]

_TITLE = "Where overlaps end"
#: Each kind of end in words.
KIND_WORDS = {
    OverlapEnd.NO_PARTING: "one of the prompts simply ends there",
    OverlapEnd.KNOWN_PLACE: "prompts diverge where others diverged before",
    OverlapEnd.NEW_PLACE: "prompts diverge at a new place",
}
_COLOURS = {
    OverlapEnd.NO_PARTING: COLOURS["no-parting"].light,
    OverlapEnd.KNOWN_PLACE: COLOURS["known-place"].light,
    OverlapEnd.NEW_PLACE: COLOURS["new-place"].light,
}
_ORDINAL_WORDS = ("first", "2nd", "3rd, 4th", "5th to 8th", "9th to 16th", "later")
_MOST_TICKS = {Shape.WIDE: 7, Shape.NARROW: 8}


def overlaps_drawing(study: TraceStudy) -> Drawing:
    """Return the figure: one panel a coordinate, overlaps stacked by what ends them."""
    overlaps = study.overlaps
    kinds = "; ".join(f"{words}: {count(overlaps.num_ending(kind))}" for kind, words in KIND_WORDS.items())
    described = (
        f"Histograms of {count(overlaps.num_shared)} overlaps by their distance from the prompt's start, "
        f"from the earlier prompt's end, and by how many prompts had diverged there before. {kinds}."
    )

    def height(shape: Shape) -> float:
        if not overlaps.num_shared:
            return 1.0
        return 7.4 if shape.is_narrow else 3.7

    def draw(figure: "FigureBase", shape: Shape) -> None:
        if not overlaps.num_shared:
            _say_empty(figure.subplots(), "no request shares anything with an earlier one")
            return
        panels = figure.subplots(3, 1) if shape.is_narrow else figure.subplots(1, 3)
        _draw_distances(panels[0], overlaps.from_start, shape)
        panels[0].set_title("from the prompt's start")
        panels[0].set_xlabel("tokens shared")
        panels[0].set_ylabel("share of overlaps")
        _draw_distances(panels[1], overlaps.from_end, shape)
        panels[1].set_title("from the earlier prompt's end")
        panels[1].set_xlabel("its tokens after the end of the overlap")
        _draw_ordinals(panels[2], overlaps)
        panels[2].set_title("at branch points")
        panels[2].set_xlabel("which prompt it was to diverge there")
        _add_legend(figure, overlaps, shape)

    return Drawing("overlaps", _TITLE, described, height, draw)


def _draw_distances(axes: "Axes", by_kind: dict[OverlapEnd, LogHistogram], shape: Shape) -> None:
    """Draw bins of equal ratio as bars of equal width; the bin of zero stands apart, left."""
    total = sum(histogram.total for histogram in by_kind.values())
    counts = {kind: histogram.counts_by_index() for kind, histogram in by_kind.items()}
    indices = sorted(set().union(*counts.values())) or [0]
    per_octave = next(iter(by_kind.values())).bins_per_octave
    zero_at = indices[0] - 2.0
    floor: dict[float, float] = {}
    for kind, histogram in by_kind.items():
        for at, number in [(zero_at, histogram.num_zeros), *counts[kind].items()]:
            if number:
                base = floor.get(at, 0.0)
                axes.bar(at, number / total, bottom=base, width=0.92, align="edge", color=_COLOURS[kind])
                floor[at] = base + number / total
    has_zeros = any(histogram.num_zeros for histogram in by_kind.values())
    octaves = range(-(-indices[0] // per_octave), (indices[-1] + 1) // per_octave + 1)
    step = -(-len(octaves) // _MOST_TICKS[shape])
    ticks = [octave * per_octave for octave in octaves if octave % step == 0] or [indices[0]]
    names = [_power_of_two(tick / per_octave) for tick in ticks]
    zero_ticks = [zero_at + 0.46] if has_zeros else []
    axes.set_xticks([*zero_ticks, *ticks], [*("0" for _ in zero_ticks), *names])
    axes.set_xlim((zero_at if has_zeros else indices[0]) - 0.4, indices[-1] + 1.4)
    _show_shares(axes, max(floor.values()))


def _draw_ordinals(axes: "Axes", overlaps: OverlapEnds) -> None:
    total = sum(overlaps.ordinals)
    if not total:
        _say_empty(axes, "no two prompts diverged")
        return
    last = max(index for index, number in enumerate(overlaps.ordinals) if number)
    shown = overlaps.ordinals[: max(2, last + 1)]
    for index, number in enumerate(shown):
        kind = OverlapEnd.NEW_PLACE if PARTING_ORDINALS[index] == 1 else OverlapEnd.KNOWN_PLACE
        axes.bar(index, number / total, width=0.8, color=_COLOURS[kind])
        axes.annotate(
            percent(number / total, digits=0),
            (index, number / total),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=COLOURS["muted"].light,
            fontsize="small",
        )
    words = [_ORDINAL_WORDS[index].replace(" ", "\n", 1) for index in range(len(shown))]
    axes.set_xticks(range(len(shown)), words)
    axes.set_xlim(-0.6, max(2.6, len(shown) - 0.4))
    _show_shares(axes, max(shown) / total)
    axes.set_ylabel("share of divergences")


def _show_shares(axes: "Axes", highest: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(0, highest * 1.12)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    quiet_axes(axes)


def _add_legend(figure: "FigureBase", overlaps: OverlapEnds, shape: Shape) -> None:
    from matplotlib.patches import Patch

    shared = max(1, overlaps.num_shared)
    handles = [
        Patch(color=_COLOURS[kind], label=f"{words}, {percent(overlaps.num_ending(kind) / shared, digits=0)}")
        for kind, words in KIND_WORDS.items()
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=1 if shape.is_narrow else 3, handlelength=0.9
    )


def _say_empty(axes: "Axes", what: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.text(
        0.5, 0.5, what, transform=axes.transAxes, ha="center", va="center", color=COLOURS["muted"].light
    )


def _power_of_two(exponent: float) -> str:
    """Return ``2 ** exponent`` in binary thousands, as token counts are read: 512, 1k, 64k."""
    amount = 2.0**exponent
    if amount >= 2**20:
        return f"{short(amount / 2**20)}M"
    return f"{short(amount / 1024)}k" if amount >= 1024 else short(amount)
