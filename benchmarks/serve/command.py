"""The command line of a benchmark of a served model."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.printing import Row, print_rows

__all__ = ["run_on_a_model"]


def run_on_a_model(
    measure: Callable[..., Sequence[Row]], *, description: str | None, numbers: dict[str, Any] | None = None
) -> None:
    """Measure the model that the command line names, and print it; exit code 1 where a target is missed.

    Args:
        measure: Takes the model, and ``numbers`` by their names.
        description: Of the help.
        numbers: More options, with what they are unless given.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded")
    for name, usual in (numbers or {}).items():
        parser.add_argument(f"--{name}", type=type(usual), default=usual)
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = vars(parser.parse_args())
    as_json = arguments.pop("json")
    rows = measure(arguments.pop("model"), **arguments)
    print_rows(rows, as_json=as_json)
    sys.exit(not all(row.reached for row in rows))
