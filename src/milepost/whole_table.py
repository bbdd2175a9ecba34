"""Tables that lose nothing on a narrow terminal, where rich would cut values short."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_whole"]

_CUT = "…"


def print_whole(table: Table, console: Console) -> None:
    """Print a table; where it is too wide, each row as a paragraph that names every value."""
    if _fits(table, console):
        console.print(table)
        return
    if table.title is not None:
        _print_wrapped(_plain(table.title), console)
    headings = [" ".join(_plain(column.header).split()).replace("/ ", "/") for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        values = list(zip(headings, map(_plain, cells), strict=True))
        # What has no heading is a mark of the row.
        marks = [value for heading, value in values if value and not heading]
        named = ", ".join(f"{heading} {value}" for heading, value in values if value and heading)
        _print_wrapped(" ".join(["-", *marks, named]), console)
    if table.caption is not None:
        _print_wrapped(" ".join(_plain(table.caption).split()), console)


def _fits(table: Table, console: Console) -> bool:
    with console.capture() as capture:
        console.print(table)
    shown = capture.get()
    # Rich drops whole columns where there is no room at all. Folded words lie over several lines.
    words = (
        word
        for column in table.columns
        if column.overflow != "fold"
        for cell in (column.header, *column.cells)
        for word in _plain(cell).split()
    )
    return _CUT not in shown and all(word in shown for word in words)


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain


def _print_wrapped(text: str, console: Console) -> None:
    console.print(text, markup=False, highlight=False)
