"""The command line of a benchmark that goes through families and number formats."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from benchmarks.printing import Row, print_rows

__all__ = ["run_families"]


def run_families(
    measure: Callable[[list[str], list[str], int], Sequence[Row]],
    *,
    description: str | None,
    families: Sequence[str],
    dtypes: Sequence[str],
) -> None:
    """Measure what the command line names, and print it; exit code 1 where any family fails."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", action="append", choices=families, metavar="NAME")
    parser.add_argument("--dtype", action="append", choices=dtypes)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = measure(arguments.family or list(families), arguments.dtype or list(dtypes), arguments.prompts)
    print_rows(rows, as_json=arguments.json)
    sys.exit(not all(row.reached for row in rows))
