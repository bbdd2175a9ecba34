"""``python -m benchmarks.regret``: see the package."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.policies.points import missing_traces
from benchmarks.printing import print_rows
from benchmarks.regret import Regret, measure, row


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regret", description="How far from the best of all caches, and why."
    )
    parser.add_argument("--traces", type=Path, required=True, metavar="DIR", help="folder of the traces")
    parser.add_argument("--full", action="store_true", help="whole traces at the budgets of the other pages")
    parser.add_argument("--exact", action="store_true", help="solve the optimum in whole numbers as well")
    parser.add_argument("--figure", type=Path, metavar="FOLDER", help="draw the parts there")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    arguments = parser.parse_args()
    if reason := missing_traces(arguments.traces):
        sys.exit(f"regret: skipped, {reason}")
    found = measure(
        arguments.traces,
        full=arguments.full,
        exact=arguments.exact,
        watch=lambda regret: print(f"{regret.trace} {regret.capacity_kv_tokens:,}", file=sys.stderr),
    )
    if arguments.figure is not None:
        from benchmarks.regret.figure import draw_regret

        print(draw_regret(found, folder=arguments.figure), file=sys.stderr)
    if not arguments.json:
        _print(found)
    print_rows([row(regret) for regret in found], as_json=arguments.json)


def _print(found: Sequence[Regret]) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("reused")
    for heading in ("learned", "jointly", "clairvoyant", "foreseen", "schedule", "bound", "ceiling"):
        table.add_column(heading, justify="right")
    for each in found:
        table.add_row(
            f"{each.trace} {each.capacity_kv_tokens // 1_000:,}k",
            *(f"{share:.3f}" for share in (each.learned, each.jointly, each.clairvoyant, each.foreseen)),
            "" if each.schedule is None else f"{each.schedule:.3f}",
            f"{each.bound:.3f}",
            f"{each.ceiling:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
