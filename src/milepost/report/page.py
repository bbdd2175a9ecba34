"""The page: one file, complete by itself. It loads nothing and runs nothing.

Everything that came with a trace is untrusted text; the template escapes it, as it escapes all text. Only the
drawings, which hold none of it, go in as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from milepost.report.amounts import count, short
from milepost.report.figures import FIGURES, Drawing, InlineSvg, render_inline
from milepost.report.headline import Tile, finding, reading_of, tiles
from milepost.report.palette import COLOURS
from milepost.report.study import TraceStudy
from milepost.report.tables import Table, overview, table_of

__all__ = ["Provenance", "render_page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How to make the same page again.

    Attributes:
        command: The command line.
        versions: Of what made it, by name.
    """

    command: str
    versions: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Section:
    """One figure with its words and numbers."""

    anchor: str
    drawing: Drawing
    svg: InlineSvg
    reading: str
    table: Table
    stem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chapter:
    """One trace."""

    anchor: str
    trace: str
    facts: str
    finding: tuple[str, str]
    tiles: Sequence[Tile]
    sections: Sequence[_Section]


def render_page(studies: Sequence[TraceStudy], stems: Sequence[str], provenance: Provenance) -> str:
    """Return the page of some traces.

    Args:
        studies: One a trace.
        stems: What the files of each trace's figures begin with, safe in a URL.
        provenance: How to make it again.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    own = files("milepost.report")
    template = environment.from_string((own / "page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        chapters=[
            _chapter(number, study, stem)
            for number, (study, stem) in enumerate(zip(studies, stems, strict=True), start=1)
        ],
        overview=overview(studies) if len(studies) > 1 else None,
        provenance=provenance,
        stylesheet=(own / "page.css").read_text(encoding="utf-8"),
        colours=COLOURS,
    )


def _chapter(number: int, study: TraceStudy, stem: str) -> _Chapter:
    anchor = f"trace-{number}"
    return _Chapter(
        anchor=anchor,
        trace=study.trace,
        facts=_facts(study),
        finding=finding(study),
        tiles=tiles(study),
        sections=[_section(anchor, stem, study, make(study)) for make in FIGURES],
    )


def _section(chapter: str, stem: str, study: TraceStudy, drawing: Drawing) -> _Section:
    anchor = f"{chapter}-{drawing.name}"
    return _Section(
        anchor=anchor,
        drawing=drawing,
        svg=render_inline(drawing, prefix=anchor),
        reading=reading_of(study, drawing.name),
        table=table_of(study, drawing.name),
        stem=f"{stem}-{drawing.name}",
    )


def _facts(study: TraceStudy) -> str:
    requests = f"{count(study.num_requests)} request{'' if study.num_requests == 1 else 's'}"
    if study.num_warm_up_requests:
        requests += f" after {count(study.num_warm_up_requests)} that warm the caches up"
    about = (
        f"{requests}, {short(study.input_tokens)} prompt tokens, median prompt "
        f"{short(study.lengths.quantile(0.5), digits=2)} tokens"
    )
    return ". ".join((about, *study.notes))
