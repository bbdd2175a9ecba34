"""``milepost simulate``."""

import json
import time
from collections.abc import Iterator
from enum import StrEnum
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
    Timing,
    TokenizerName,
    TracesArgument,
    WholePrompts,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from milepost.traces import Trace, TraceRequest

__all__ = ["simulate"]

_REQUESTS_PER_UPDATE = 50


class _OldFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


def simulate(
    traces: TracesArgument,
    policy: Policies = None,
    capacity_kv_tokens: CapacitiesKvTokens = None,
    capacity: Capacities = None,
    checkpoint_kv_tokens: CheckpointKvTokens = None,
    model: CostModel = None,
    grid: Grid = None,
    max_requests: MaxRequests = None,
    after: After = None,
    tokenizer: TokenizerName = None,
    skip_bad_lines: SkipBadLines = False,
    whole_prompts: WholePrompts = False,
    image_tokens: ImageTokens = None,
    timing: Timing = False,
    as_json: Json = False,
    old_format: Annotated[_OldFormat, typer.Option("--format", hidden=True)] = _OldFormat.TABLE,
) -> None:
    """Replay request logs under several policies and capacities, and say what each would have reused.

    Each trace is read once, in order, and drives one cache for each policy and capacity: the very cache that
    serves, without tensors. The table says what was reused, how many checkpoints were stored for a request,
    and why the rest was computed: never seen before, no checkpoint placed there, evicted, or off the grid.

    Try: `milepost simulate synthetic:chat --capacity-kv-tokens 100k --checkpoint-kv-tokens 1536`
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from milepost.cli.result_table import result_tables
    from milepost.cli.traffic import build_settings, parse_after, report_log, unique
    from milepost.simulator import TraceSource, distinct_names, simulate_all
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
    opened = [(source.open(), name) for source, name in zip(sources, distinct_names(sources), strict=True)]
    errors = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[count]:,} requests"),
    )
    results, logs = [], {}
    with Progress(
        *columns, TimeElapsedColumn(), console=errors, transient=True, disable=not errors.is_terminal
    ) as progress:
        for trace, name in opened:
            results += simulate_all(
                _watched(trace, name, progress),
                settings,
                grid=grid,
                after=warm_up,
                clock=time.process_time if timing else None,
                name=name,
            )
            logs[name] = trace.facts
            report_log(name, trace.facts, errors)
    if as_json or old_format is _OldFormat.JSON:
        told = [result.as_json() | {"log": logs[result.trace].as_json()} for result in results]
        print(json.dumps(told, indent=2))
        return
    console = Console()
    for table in result_tables(results):
        print_whole(table, console)


def _watched(trace: "Trace", name: str, progress: "Progress") -> Iterator["TraceRequest"]:
    """Yield the requests of ``trace`` while the display counts them."""
    task = progress.add_task(name, total=None, count=0)
    for number, request in enumerate(trace):
        if number % _REQUESTS_PER_UPDATE == 0:
            progress.update(task, count=number)
        yield request
    progress.update(task, visible=False)
