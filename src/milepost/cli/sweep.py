"""``milepost sweep``."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from milepost.cli.options import (
    After,
    Capacities,
    CapacitiesKvTokens,
    CheckpointKvTokens,
    CostModel,
    Grid,
    ImageTokens,
    Json,
    MaxRequests,
    Policies,
    SkipBadLines,
    TokenizerName,
    TracesArgument,
    WholePrompts,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from milepost.simulator import SweepProgress

__all__ = ["sweep"]


def sweep(
    traces: TracesArgument,
    policy: Policies = None,
    capacity_kv_tokens: CapacitiesKvTokens = None,
    capacity: Capacities = None,
    checkpoint_kv_tokens: CheckpointKvTokens = None,
    model: CostModel = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON lines, one per point; what it has is not done again.")
    ] = Path("sweep.jsonl"),
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes at once. Default: one for each core.")
    ] = None,
    grid: Grid = None,
    max_requests: MaxRequests = None,
    after: After = None,
    tokenizer: TokenizerName = None,
    skip_bad_lines: SkipBadLines = False,
    whole_prompts: WholePrompts = False,
    image_tokens: ImageTokens = None,
    as_json: Json = False,
) -> None:
    """Replay request logs under a whole grid of policies and capacities, on all cores.

    Every finished point is written at once, so Ctrl-C loses nothing: the same command goes on where it was
    stopped. The finished file is sorted and the same whatever the number of jobs. A point is known by the
    content of its trace, its policy, its memory, its costs and the version of Milepost.

    Try: `milepost sweep synthetic:chat synthetic:agents --capacity-kv-tokens 50k --capacity-kv-tokens 200k
    --checkpoint-kv-tokens 1536 --policy learned --policy balanced:4 --output sweep.jsonl`
    """
    from rich.console import Console

    from milepost.cli.result_table import result_tables
    from milepost.cli.traffic import build_settings, parse_after, report_log, unique
    from milepost.simulator import SweepPoint, TraceSource, available_cores, distinct_names
    from milepost.simulator import sweep as sweep_points
    from milepost.whole_table import print_whole

    warm_up = parse_after(after)
    settings = build_settings(
        policies=policy,
        capacity_kv_tokens=capacity_kv_tokens,
        capacity=capacity,
        checkpoint_kv_tokens=checkpoint_kv_tokens,
        model=model,
    )
    sources = [
        TraceSource(path, tokenizer, skip_bad_lines, max_requests, whole_prompts, image_tokens)
        for path in unique(traces)
    ]
    points = [SweepPoint(source, setting) for source, setting in product(sources, settings)]
    errors = Console(stderr=True)
    with _progress_bar(errors) as watch:
        outcome = sweep_points(
            points, jobs=jobs or available_cores(), grid=grid, after=warm_up, output=output, watch=watch
        )
    names = distinct_names(sources)
    logs = {name: outcome.surveys[source].log for source, name in zip(sources, names, strict=True)}
    for name, log in logs.items():
        report_log(name, log, errors)
    if as_json:
        told = [result.as_json() | {"log": logs[result.trace].as_json()} for result in outcome.results]
        print(json.dumps(told, indent=2))
    else:
        console = Console()
        for table in result_tables(outcome.results):
            print_whole(table, console)
    resumed = f" ({outcome.num_resumed} of them were there already)" if outcome.num_resumed else ""
    errors.print(f"{len(points)} points in {output}{resumed}", markup=False, highlight=False)


@contextmanager
def _progress_bar(console: "Console") -> Iterator[Callable[["SweepProgress"], None]]:
    """Show how far a sweep is and how long it will take, where somebody is looking."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def watch(state: "SweepProgress") -> None:
            if state.stage not in tasks:
                tasks[state.stage] = progress.add_task(state.stage, total=state.total)
            progress.update(tasks[state.stage], completed=state.done)

        yield watch
