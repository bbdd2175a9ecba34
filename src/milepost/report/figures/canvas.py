"""From a drawing to files and to a piece of the page, the same bytes for the same drawing.

Each figure is drawn in two shapes: for a desk or a sheet of paper, and for a phone, where shrinking the wide
one would leave nothing legible. On the page text stays text (it can be selected, searched and read aloud, and
takes the page's font), colours are CSS variables, and ids are made unique. Files are complete by themselves,
with a title, and their text is outlines: they look the same everywhere.
"""

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from milepost.report.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

__all__ = ["Drawing", "InlineSvg", "Shape", "columns_for", "quiet_axes", "render_inline", "write_files"]

_PNG_DOTS_PER_INCH = 160
_HASH_SALT = "milepost"
_HEADING_INCHES = 0.4


class Shape(Enum):
    """The width of a figure in inches, at 72 of the page's units each."""

    WIDE = 10.8
    NARROW = 4.0

    @property
    def is_narrow(self) -> bool:
        """Whether it is for a phone."""
        return self is Shape.NARROW


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure.

    Attributes:
        name: Of its files and anchor; lower-case letters and hyphens.
        title: What it shows.
        description: What can be seen in it, for those who cannot see it.
        height: In inches, of each shape.
        draw: Draws it into an empty figure; called once for each shape and purpose.
    """

    name: str
    title: str
    description: str
    height: Callable[[Shape], float]
    draw: Callable[["FigureBase", Shape], None]


@dataclass(frozen=True, slots=True)
class InlineSvg:
    """The two shapes of a figure as elements of the page."""

    wide: str
    narrow: str


def style(shape: Shape) -> AbstractContextManager[None]:
    """Return the settings that a figure of this shape is drawn and saved with, until the context ends."""
    from matplotlib import rc_context

    ink, muted, rule = (COLOURS[name].light for name in ("ink", "muted", "rule"))
    size = 8.0 if shape.is_narrow else 9.5
    # Any: what matplotlib expects is a literal of 300 names.
    settings: Any = {
        "svg.hashsalt": _HASH_SALT,
        "font.family": "sans-serif",
        # It comes with matplotlib, so text has the same width everywhere.
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": size,
        "axes.titlesize": size + 0.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.labelsize": size,
        "axes.labelcolor": muted,
        "axes.edgecolor": rule,
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": COLOURS["ground"].light,
        "figure.facecolor": COLOURS["ground"].light,
        "grid.color": rule,
        "grid.linewidth": 0.7,
        "text.color": ink,
        "text.parse_math": False,
        "xtick.color": rule,
        "ytick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.labelsize": size - 0.5,
        "ytick.labelsize": size - 0.5,
        "legend.frameon": False,
        "legend.fontsize": size - 0.5,
        "legend.handlelength": 1.4,
        "legend.columnspacing": 1.4,
        "lines.linewidth": 2.0,
        "path.simplify": True,
    }
    return rc_context(settings)


def columns_for(num_panels: int) -> int:
    """Return in how many columns panels of one kind are laid out on a wide figure.

    >>> [columns_for(number) for number in (1, 2, 3, 4, 5, 7, 9)]
    [1, 2, 3, 2, 3, 4, 3]
    """
    if num_panels in (7, 8):
        return 4
    return 2 if num_panels == 4 else min(3, num_panels)


def quiet_axes(axes: "Axes", *, grid: Literal["x", "y"] = "y") -> None:
    """Leave of an axis only what helps to read it: a light grid across, no marks on the other."""
    axes.grid(axis=grid, visible=True)
    axes.tick_params(length=0)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def render_inline(drawing: Drawing, *, prefix: str) -> InlineSvg:
    """Return both shapes as elements of the page.

    Args:
        drawing: What is drawn.
        prefix: Of all ids in it; unique on the page, letters, digits and hyphens.
    """
    shapes = []
    for shape in Shape:
        with style(shape):
            figure = _empty_figure(shape, drawing.height(shape))
            drawing.draw(figure, shape)
            svg = _svg(figure, outlines=False, title=None)
        shapes.append(_embeddable(svg, prefix=f"{prefix}-{shape.name.lower()}-", shape=shape))
    return InlineSvg(*shapes)


def write_files(drawing: Drawing, folder: Path, *, stem: str, heading: str) -> tuple[Path, Path]:
    """Write ``stem.svg`` and ``stem.png`` under ``heading``; return both paths."""
    paths = folder / f"{stem}.svg", folder / f"{stem}.png"
    shape = Shape.WIDE
    height = drawing.height(shape)
    with style(shape):
        figure = _empty_figure(shape, height + _HEADING_INCHES)
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[_HEADING_INCHES, height])[:, 0]
        left = 0.1 / shape.value
        above.text(left, 0.45, heading, fontsize=12, fontweight="bold", va="center")
        drawing.draw(below, shape)
        paths[0].write_text(_svg(figure, outlines=True, title=heading), encoding="utf-8")
        figure.savefig(paths[1], format="png", dpi=_PNG_DOTS_PER_INCH, metadata={"Software": None})
    return paths


def _empty_figure(shape: Shape, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(shape.value, height), layout=engine)
    FigureCanvasAgg(figure)
    return figure


def _svg(figure: "Figure", *, outlines: bool, title: str | None) -> str:
    from matplotlib import rc_context

    metadata: dict[str, str | None] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    if title is not None:
        metadata["Title"] = title
    stream = io.StringIO()
    with rc_context({"svg.fonttype": "path" if outlines else "none"}):
        figure.savefig(stream, format="svg", metadata=metadata)
    return re.sub(r"[ \t]+$", "", stream.getvalue(), flags=re.MULTILINE)


def _embeddable(svg: str, *, prefix: str, shape: Shape) -> str:
    """Return the ``<svg>`` element without what belongs to a file: prologue, metadata, size, global style."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", element, flags=re.DOTALL)
    opening, _, rest = element.partition(">")
    view_box = re.search(r'viewBox="[^"]*"', opening)
    assert view_box is not None
    rest = rest.replace("xlink:href=", "href=")
    rest = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}", rest)
    # Who looks for the font of the page finds it by inheritance.
    rest = re.sub(r"font-family: [^;\"]*;?\s*", "", rest)
    rest = re.sub(r"\n\s*", "\n", rest)
    # A hundredth of a unit is finer than any screen.
    rest = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), rest)
    for name, colour in COLOURS.items():
        rest = rest.replace(colour.light, f"var(--{name})")
    return f'<svg class="{shape.name.lower()}" {view_box[0]} aria-hidden="true" focusable="false">{rest}'
