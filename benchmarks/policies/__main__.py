"""``python -m benchmarks.policies``: see the package."""

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.policies import measure, missing_traces, rows
from benchmarks.policies.comparison import Point
from benchmarks.policies.granularity import POLICIES, GridPoint
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

        points, grids, speed = measure(
            arguments.traces,
            jobs=arguments.jobs,
            output=arguments.output,
            quick=arguments.quick,
            watch=watch,
        )
    if not arguments.json:
        _print_policies(points)
        _print_grids(grids)
    print_rows(rows(points, grids, speed), as_json=arguments.json)


def _print_policies(points: Sequence[Point]) -> None:
    """Print what each policy reuses at each point, in the setting that is best there."""
    console = Console()
    for trace, of_trace in groupby(points, key=lambda point: point.trace):
        at = list(of_trace)
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(trace)
        for point in at:
            table.add_column(f"{point.capacity_kv_tokens // 1_000:,}k", justify="right")
            table.add_column("with", overflow="fold")
        for name in at[0].best:
            cells = []
            for point in at:
                result = point.best[name]
                _, _, setting = result.policy.partition(":")
                cells += [f"{result.reused_fraction:.4f}", setting]
            table.add_row(name, *cells)
        bounds = [(f"{point.ceiling_fraction:.4f}", "") for point in at]
        table.add_row("ceiling", *(cell for bound in bounds for cell in bound))
        console.print(table)


def _print_grids(points: Sequence[GridPoint]) -> None:
    """Print what each step from stock vLLM to the learned policy reuses, by the positions of states."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("states and KV every", "tokens"):
        table.add_column(heading)
    for heading in (*POLICIES, "ceiling"):
        table.add_column(heading, justify="right")
    for trace, of_trace in groupby(points, key=lambda point: point.trace):
        for point in of_trace:
            table.add_row(
                f"{trace} {point.capacity_kv_tokens // 1_000:,}k",
                f"{point.grid:,}",
                *(f"{point.reused[policy]:.3f}" for policy in POLICIES),
                f"{point.ceiling_fraction:.3f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
