"""From studies to a folder: the page, and each figure as SVG and PNG."""

import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from milepost.errors import ConfigurationError
from milepost.extras import require_extra
from milepost.report.drawing_library import load_matplotlib
from milepost.report.figures import FIGURES, write_files
from milepost.report.figures.measured import saved_drawing, time_drawing
from milepost.report.frontier_file import read_frontier
from milepost.report.page import Provenance, render_page
from milepost.report.study import TraceStudy
from milepost.simulator.result_file import code_version

__all__ = [
    "FIGURES_FOLDER",
    "PAGE_NAME",
    "prepare_folder",
    "used_versions",
    "write_frontiers",
    "write_report",
]

PAGE_NAME = "index.html"
FIGURES_FOLDER = "figures"
_MOST_STEM_CHARACTERS = 60
_MOST_HEADING_CHARACTERS = 72


def prepare_folder(folder: Path) -> None:
    """Find out before the work, not after it, that its result cannot be written.

    Raises:
        MissingExtraError: a library is not installed.
        ConfigurationError: the folder cannot be made.
    """
    require_extra("report", "jinja2", purpose="a report")
    load_matplotlib("a report")
    try:
        (folder / FIGURES_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error}; give another --output") from error


def write_report(studies: Sequence[TraceStudy], folder: Path, *, command: str) -> list[Path]:
    """Write the page and the figures; return their paths, the page first.

    Args:
        studies: One a trace, at least one.
        folder: Where to; made if it is not there. What has the same name is overwritten.
        command: The command line that makes the same report again.

    Raises:
        ConfigurationError: there is nothing to report, or the folder cannot be written.

    The same studies and versions give the same bytes.
    """
    if not studies:
        raise ConfigurationError("there is no trace to report on; give at least one")
    prepare_folder(folder)
    stems = _stems([study.trace for study in studies])
    page = folder / PAGE_NAME
    rendered = render_page(studies, stems, Provenance(command=command, versions=used_versions()))
    written = [page]
    for study, stem in zip(studies, stems, strict=True):
        for make in FIGURES:
            drawing = make(study)
            # The drawings' font knows no script but the commonest.
            name = study.trace if study.trace.isascii() and study.trace.isprintable() else stem
            heading = f"{drawing.title}: {_shortened(name)}"
            written += write_files(
                drawing, folder / FIGURES_FOLDER, stem=f"{stem}-{drawing.name}", heading=heading
            )
    # A file's name need not be text.
    page.write_text(rendered, encoding="utf-8", errors="backslashreplace")
    return written


def write_frontiers(paths: Sequence[str | Path], folder: Path) -> list[Path]:
    """Write two figures for each workload of files of measured runs, as SVG and PNG; return their paths.

    Raises:
        ConfigurationError: a file holds no measured runs, or the folder cannot be written.
    """
    found = [measured for path in paths for measured in read_frontier(path)]
    prepare_folder(folder)
    written: list[Path] = []
    for measured, stem in zip(found, _stems([each.title for each in found]), strict=True):
        for drawing in (saved_drawing(measured), time_drawing(measured)):
            written += write_files(
                drawing,
                folder / FIGURES_FOLDER,
                stem=f"{stem}-{drawing.name}",
                heading=f"{measured.title}: {drawing.title.lower()}",
            )
    return written


def used_versions() -> list[tuple[str, str]]:
    """Return the versions of what makes a report."""
    libraries = [("milepost", code_version())]
    libraries += [(name, version(name)) for name in ("numpy", "matplotlib", "jinja2")]
    return [*libraries, ("python", platform.python_version())]


def _shortened(name: str) -> str:
    most = _MOST_HEADING_CHARACTERS
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _stems(names: Sequence[str]) -> list[str]:
    """Return for each trace the beginning of its files' names: plain, and different from the others'."""
    stems: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[:_MOST_STEM_CHARACTERS].lower() or "trace"
        stem, number = plain, 1
        while stem in stems:
            number += 1
            stem = f"{plain}-{number}"
        stems.append(stem)
    return stems
