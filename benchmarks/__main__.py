"""Every number the README quotes, in one run.

    python -m benchmarks [NAME ...] [--json]

Names: planner, bookkeeping, capture, resume, exactness. All of them take about a quarter of an hour on two
cores that do nothing else; what else they do shows in the times, much less in the ratios.
"""

import argparse
import logging
from collections.abc import Callable, Sequence

from rich.console import Console

from benchmarks.printing import Row, print_rows


def _planner() -> Sequence[Row]:
    from benchmarks import planner

    return planner.rows(planner.measure(quick=False))


def _bookkeeping() -> Sequence[Row]:
    from benchmarks import bookkeeping

    return bookkeeping.measure()


def _capture() -> Sequence[Row]:
    from benchmarks import capture

    return capture.measure()


def _resume() -> Sequence[Row]:
    from benchmarks import resume

    return resume.measure()


def _exactness() -> Sequence[Row]:
    from benchmarks import exactness

    return exactness.measure(list(exactness.ALL_FAMILIES), ["float32", "bfloat16"], 50)


# Exactness last: it sets the number of threads.
_BENCHMARKS: dict[str, Callable[[], Sequence[Row]]] = {
    "planner": _planner,
    "bookkeeping": _bookkeeping,
    "capture": _capture,
    "resume": _resume,
    "exactness": _exactness,
}


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_BENCHMARKS))
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(_BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(_BENCHMARKS)}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for name, measure in _BENCHMARKS.items():
        if not arguments.names or name in arguments.names:
            Console(stderr=True).print(f"[bold]{name}[/]")
            print_rows(measure(), as_json=arguments.json)


if __name__ == "__main__":
    main()
