"""One row a claim: what was measured, what was wanted, and whether it was reached."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["Row", "print_rows", "run_and_print"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim of one benchmark."""

    name: str
    measured: str
    target: str
    reached: bool
    numbers: dict[str, float | int | str] = field(default_factory=dict)


def print_rows(rows: Sequence[Row], *, as_json: bool) -> None:
    """Print ``rows`` as a table or as JSON lines."""
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("benchmark", "measured", "target", ""):
        table.add_column(heading)
    for row in rows:
        table.add_row(row.name, row.measured, row.target, "[green]yes[/]" if row.reached else "[red]NO[/]")
    Console().print(table)


def run_and_print(measure: Callable[[], Sequence[Row]]) -> None:
    """Run one benchmark from its own command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    print_rows(measure(), as_json=arguments.json)
