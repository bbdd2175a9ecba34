"""``milepost report``."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    from milepost.footprint import PrefillCost
    from milepost.simulator import Setting

__all__ = ["report"]

_PAIR = re.compile(r"\s*([0-9]+)\s*=\s*([0-9.eE+-]+)\s*")
_REQUESTS_PER_UPDATE = 50


def report(
    traces: TracesArgument,
    policy: Policies = None,
    capacity_kv_tokens: CapacitiesKvTokens = None,
    capacity: Capacities = None,
    checkpoint_kv_tokens: CheckpointKvTokens = None,
    model: CostModel = None,
    prefill_seconds: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKENS=SECONDS",
            help="A measured prefill without a cache, such as 4096=0.31; three or more lengths calibrate the "
            "estimates of time. Without them, estimates are in FLOPs of --model, or in tokens.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for index.html and figures/.")
    ] = Path("report"),
    grid: Grid = None,
    max_requests: MaxRequests = None,
    after: After = None,
    tokenizer: TokenizerName = None,
    skip_bad_lines: SkipBadLines = False,
    whole_prompts: WholePrompts = False,
    image_tokens: ImageTokens = None,
    as_json: Json = False,
) -> None:
    """Replay request logs and write one page about them, with every figure also as SVG and PNG.

    The page shows reuse against memory, where overlaps end, where checkpoints were placed, what was lost to
    what over time, and what the first token waits for. It is one file, loads nothing and runs nothing. What
    happens inside is shown at the middle one of the capacities.

    A file that `python -m benchmarks.frontier --output` wrote is drawn as it was measured: tokens saved by
    the checkpoints that are held, and time against memory.

    Try: `milepost report synthetic:chat --policy learned --policy tail+junction --capacity-kv-tokens 50k
    --capacity-kv-tokens 100k --capacity-kv-tokens 200k --checkpoint-kv-tokens 1536 --output report`
    """
    from rich.console import Console

    from milepost.cli.traffic import build_settings, parse_after, report_log, unique
    from milepost.report import is_frontier_file, prepare_folder, study_trace, write_report
    from milepost.simulator import TraceSource, distinct_names

    if measured := [path for path in traces if is_frontier_file(path)]:
        _draw_measured(measured, traces, output, as_json=as_json)
        return
    warm_up = parse_after(after)
    settings = build_settings(
        policies=policy,
        capacity_kv_tokens=capacity_kv_tokens,
        capacity=capacity,
        checkpoint_kv_tokens=checkpoint_kv_tokens,
        model=model,
    )
    footprint = settings[0].footprint if model is not None else None
    cost = _prefill_cost(settings[0], has_model=model is not None, measured=prefill_seconds)
    prepare_folder(output)
    sources = [
        TraceSource(path, tokenizer, skip_bad_lines, max_requests, whole_prompts, image_tokens)
        for path in unique(traces)
    ]
    opened = [(source.open(), name) for source, name in zip(sources, distinct_names(sources), strict=True)]
    errors = Console(stderr=True)
    studies, logs = [], {}
    with _progress(errors) as start:
        for trace, name in opened:
            studies.append(
                study_trace(
                    trace,
                    settings,
                    cost=cost,
                    footprint=footprint,
                    grid=grid,
                    after=warm_up,
                    name=name,
                    on_request=start(name),
                )
            )
            logs[name] = trace.facts
            report_log(name, trace.facts, errors)
        start("drawing")
        command = _command_line(
            ("", unique(traces)),
            ("--policy", unique(setting.policy for setting in settings)),
            ("--capacity-kv-tokens", capacity_kv_tokens),
            ("--capacity", capacity),
            ("--checkpoint-kv-tokens", checkpoint_kv_tokens),
            ("--model", model),
            ("--prefill-seconds", prefill_seconds),
            ("--grid", grid),
            ("--max-requests", max_requests),
            ("--after", after),
            ("--tokenizer", tokenizer),
            ("--skip-bad-lines", skip_bad_lines),
            ("--whole-prompts", whole_prompts),
            ("--image-tokens", image_tokens),
            ("--output", output),
        )
        page, *figures = write_report(studies, output, command=command)
    if as_json:
        print(
            json.dumps(
                {
                    "page": str(page),
                    "figures": [str(figure) for figure in figures],
                    "results": [
                        result.as_json() | {"log": logs[result.trace].as_json()}
                        for study in studies
                        for result in study.results
                    ],
                },
                indent=2,
            )
        )
    errors.print(f"Wrote {page}, and {len(figures)} figure files beside it.", markup=False, highlight=False)


def _draw_measured(measured: list[str], given: list[str], output: Path, *, as_json: bool) -> None:
    """Draw files of measured runs, which need no policy and no capacity.

    Raises:
        typer.BadParameter: there are traces among them.
    """
    from rich.console import Console

    from milepost.report import write_frontiers

    if len(measured) < len(given):
        others = ", ".join(path for path in given if path not in measured)
        raise typer.BadParameter(f"{others} is to be replayed, and the others were measured; draw them apart")
    figures = write_frontiers(measured, output)
    if as_json:
        print(json.dumps({"figures": [str(figure) for figure in figures]}, indent=2))
    Console(stderr=True).print(f"Wrote {len(figures)} figure files.", markup=False, highlight=False)


def _prefill_cost(setting: "Setting", *, has_model: bool, measured: list[str] | None) -> "PrefillCost":
    """Return F(p): in seconds where prefills were measured, else in FLOPs of the model, else in tokens.

    Raises:
        typer.BadParameter: a measurement is not written TOKENS=SECONDS.
        ConfigurationError: the measurements do not determine a cost.
    """
    from milepost.footprint import PrefillCost, fit_seconds

    cost = setting.footprint.cost if has_model else PrefillCost.tokens()
    if not measured:
        return cost
    pairs = []
    for text in measured:
        match = _PAIR.fullmatch(text)
        try:
            pairs.append((int(match[1]), float(match[2])) if match else (0, float("nan")))
        except ValueError:
            match = None
        if match is None:
            raise typer.BadParameter(
                f"{text!r} is no measured prefill; write TOKENS=SECONDS, as 4096=0.31",
                param_hint="--prefill-seconds",
            )
    # Without a model, how much of the work is attention's is left to the measurements.
    shape = cost if has_model else PrefillCost(unit="flops", linear_per_token=1.0, attention_per_pair=1.0)
    return fit_seconds(shape, pairs)


def _command_line(*options: tuple[str, object]) -> str:
    """Return the command with what was given, ready for a shell; an option without a name is positional."""
    words = ["milepost", "report"]
    for name, given in options:
        values = given if isinstance(given, list | tuple) else [given]
        for value in values:
            if value is None or value is False:
                continue
            words += [name] if name else []
            words += [] if value is True else [f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


@contextmanager
def _progress(console: "Console") -> Iterator[Callable[[str], Callable[[], None]]]:
    """Show what is being done and how many requests are, where somebody is looking."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.fields[shown]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as progress:

        def start(what: str) -> Callable[[], None]:
            task = progress.add_task(what, total=None, shown="")
            count = 0

            def step() -> None:
                nonlocal count
                count += 1
                if count % _REQUESTS_PER_UPDATE == 0:
                    progress.update(task, shown=f"{count:,} requests")

            return step

        yield start
