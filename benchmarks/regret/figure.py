"""The regret of each point as a bar: what is reused, and the parts of what is not."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.drawing import draw_png
from benchmarks.regret import Regret
from milepost.report.amounts import percent
from milepost.report.figures.canvas import Drawing, Shape, quiet_axes
from milepost.report.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

__all__ = ["draw_regret"]

_STEM = "regret"
_HEADING = "What the best of all caches would reuse, and what it would take"
# Of each part: its name, and the colour of an area.
_PARTS = (
    ("reused by learned", "reused"),
    ("not knowing the future", "unseen"),
    ("one prompt at a time", "eviction"),
    ("approximation, and a bound that is loose", "alignment"),
)


def draw_regret(found: Sequence[Regret], *, folder: Path) -> Path:
    """Write the figure into ``folder``; return the PNG."""

    def draw(figure: "FigureBase", shape: Shape) -> None:
        axes = figure.subplots()
        for place, regret in enumerate(reversed(found)):
            start = 0.0
            shares = (
                regret.learned,
                regret.not_knowing,
                regret.one_prompt_at_a_time,
                regret.approximation,
            )
            for (name, colour), share in zip(_PARTS, shares, strict=True):
                label = name if place == 0 else None
                axes.barh(
                    place, max(0.0, share), left=start, height=0.66, color=COLOURS[colour].light, label=label
                )
                start += max(0.0, share)
            axes.plot(
                [regret.ceiling] * 2, [place - 0.4, place + 0.4], color=COLOURS["ink"].light, linewidth=1.4
            )
        names = [f"{regret.trace} {regret.capacity_kv_tokens // 1_000:,}k" for regret in reversed(found)]
        axes.set_yticks(range(len(found)), names)
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel("share of all prompt tokens; the mark is what endless memory reuses")
        axes.xaxis.set_major_formatter(lambda value, _: percent(value, digits=0))
        quiet_axes(axes, grid="x")
        figure.legend(loc="outside lower center", ncols=len(_PARTS))

    drawing = Drawing(
        _STEM,
        _HEADING,
        "Bars of shares of all prompt tokens, by trace.",
        lambda _: 1.4 + 0.3 * len(found),
        draw,
    )
    return draw_png(drawing, folder)
