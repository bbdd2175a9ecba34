"""A figure of a page of the documentation: one small PNG, in the look of the reports."""

from pathlib import Path

from milepost.report.figures.canvas import Drawing, write_files

__all__ = ["draw_png"]

# Enough for lines in a few hues, and a third of the bytes.
_COLOURS = 64


def draw_png(drawing: Drawing, folder: Path) -> Path:
    """Write the figure, under its title, into ``folder``; return the file."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    svg, png = write_files(drawing, folder, stem=drawing.name, heading=drawing.title)
    svg.unlink()
    with Image.open(png) as image:
        small = image.convert("RGB").quantize(_COLOURS)
    small.save(png, optimize=True)
    return png
