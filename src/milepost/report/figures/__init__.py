"""The figures of a report, in the order they are read."""

from collections.abc import Callable

from milepost.report.figures.canvas import Drawing, InlineSvg, render_inline, write_files
from milepost.report.figures.frontier import frontier_drawing
from milepost.report.figures.losses import losses_drawing
from milepost.report.figures.overlaps import overlaps_drawing
from milepost.report.figures.placements import placements_drawing
from milepost.report.figures.prefill import prefill_drawing
from milepost.report.study import TraceStudy

__all__ = ["FIGURES", "Drawing", "InlineSvg", "render_inline", "write_files"]

FIGURES: tuple[Callable[[TraceStudy], Drawing], ...] = (
    frontier_drawing,
    overlaps_drawing,
    placements_drawing,
    losses_drawing,
    prefill_drawing,
)
