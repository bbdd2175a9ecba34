"""``python -m benchmarks.policies``: see the package."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.policies import measure, missing_traces, rows
from benchmarks.policies.comparison import Point
from benchmarks.printing import print_rows
from milepost.simulator import SweepProgress


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.policies", description="Every policy on five real traces."
    )
    parser.add_argument("--traces", type=Path, required=True, metavar="DIR", help="folder of the traces")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes at once; one for each core")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep finished runs there and go on")
    parser.add_argument("--quick", action="store_true", help="one setting of each policy")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    arguments = parser.parse_args()
    if reason := missing_traces(arguments.traces):
        sys.exit(f"policies: skipped, {reason}")
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("")

        def watch(state: SweepProgress) -> None:
            progress.update(task, description=state.stage, completed=state.done, total=state.total)

        points, speed = measure(
            arguments.traces,
            jobs=arguments.jobs,
            output=arguments.output,
            quick=arguments.quick,
            watch=watch,
        )
    if not arguments.json:
        _print_policies(points)
    print_rows(rows(points, speed), as_json=arguments.json)


def _print_policies(points: Sequence[Point]) -> None:
    """Print what each policy reuses at each point in its best setting, and that setting where it has one."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("reused")
    for point in points:
        table.add_column(
            f"{point.trace}\n{point.capacity_kv_tokens // 1_000:,}k", justify="right", vertical="bottom"
        )
    for name in points[0].best:
        cells = []
        for point in points:
            result = point.best[name]
            _, _, setting = result.policy.partition(":")
            cells.append(f"{result.reused_fraction:.3f}" + (f"\n{setting}" if setting else ""))
        table.add_row(name, *cells)
    table.add_row("ceiling", *(f"{point.ceiling_fraction:.3f}" for point in points))
    Console(width=None if Console().is_terminal else 250).print(table)


if __name__ == "__main__":
    main()
