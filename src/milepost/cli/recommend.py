"""``milepost recommend``."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from milepost.cli.options import (
    ENGINE_NAMES,
    After,
    Calibrate,
    Capacity,
    CapacityKvTokens,
    CheckpointKvTokens,
    CostModel,
    ImageTokens,
    Json,
    MaxRequests,
    SkipBadLines,
    TokenizerName,
    TraceArgument,
    WholePrompts,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from milepost.footprint import Footprint
    from milepost.traces import Trace, TraceRequest

__all__ = ["recommend"]

_REQUESTS_PER_UPDATE = 50
_ENGINES = ", ".join(ENGINE_NAMES)


def recommend(
    trace: TraceArgument,
    model: CostModel = None,
    capacity_kv_tokens: CapacityKvTokens = None,
    capacity: Capacity = None,
    checkpoint_kv_tokens: CheckpointKvTokens = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help=f"Advise on this engine alone; may be given twice. One of {_ENGINES}."),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(min=1, help="vLLM's attention block, as it prints at its start. Default: worked out."),
    ] = None,
    max_requests: MaxRequests = None,
    after: After = None,
    calibrate: Calibrate = False,
    tokenizer: TokenizerName = None,
    skip_bad_lines: SkipBadLines = False,
    whole_prompts: WholePrompts = False,
    image_tokens: ImageTokens = None,
    as_json: Json = False,
) -> None:
    """Say what to set in the engine you have, from the requests that it serves.

    The log is replayed under every kind of policy and under the settings that each engine offers, in your
    memory. For each engine, the setting that reuses most is printed as a command line to copy, with what to
    expect of it and how much more the best policy would reuse.

    Try: `milepost recommend requests.jsonl.zst --model Qwen/Qwen3.5-4B --capacity 40GiB --engine vllm`
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from milepost.byte_size import parse_bytes
    from milepost.cli.advice_text import print_advice
    from milepost.cli.traffic import build_settings, config_of, parse_after, report_log, unique
    from milepost.recommend import ModelLayout, family_of, layout_of, nominal_layout
    from milepost.recommend import recommend as recommend_settings
    from milepost.simulator import TraceSource

    engines = unique(engine or ENGINE_NAMES)
    if unknown := [name for name in engines if name not in ENGINE_NAMES]:
        raise typer.BadParameter(f"{unknown[0]!r} is unknown; it is one of {_ENGINES}", param_hint="--engine")
    if capacity is not None and capacity_kv_tokens is not None:
        raise typer.BadParameter("give --capacity or --capacity-kv-tokens, not both")
    if calibrate and model is None:
        raise typer.BadParameter("--calibrate measures a --model; give one")
    warm_up = parse_after(after)
    (setting,) = build_settings(
        policies=["learned"],
        capacity_kv_tokens=[capacity_kv_tokens] if capacity_kv_tokens else None,
        capacity=[capacity] if capacity else None,
        checkpoint_kv_tokens=checkpoint_kv_tokens,
        model=model,
    )
    footprint, layout, family = setting.footprint, nominal_layout(setting.footprint), None
    if model is not None:
        config = config_of(model)
        layout, family = layout_of(config) or layout, family_of(config)
    if calibrate and model is not None:
        footprint = _in_seconds(footprint, model)
    if block_size is not None:
        layout = ModelLayout(block_size, layout.pages_per_state)
    opened = TraceSource(trace, tokenizer, skip_bad_lines, max_requests, whole_prompts, image_tokens).open()
    errors = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    ) as progress:

        def watch(requests: Sequence["TraceRequest"], label: str) -> Iterable["TraceRequest"]:
            return progress.track(requests, total=len(requests), description=label)

        advice = recommend_settings(
            _read(opened, progress),
            name=opened.name,
            footprint=footprint,
            capacity_kv_tokens=setting.capacity_kv_tokens,
            model=None if model is None else _servable(model),
            memory_bytes=None if capacity is None else parse_bytes(capacity),
            layout=layout,
            family=family,
            engines=engines,
            after=warm_up,
            watch=watch,
        )
    report_log(opened.name, opened.facts, errors)
    if as_json:
        print(json.dumps(advice.as_json() | {"log": opened.facts.as_json()}, indent=2))
        return
    print_advice(advice, Console())


def _read(trace: "Trace", progress: "Progress") -> Iterator["TraceRequest"]:
    """Yield the requests of ``trace`` while the display counts them: text takes long to make tokens of."""
    task = progress.add_task("reading", total=None)
    for number, request in enumerate(trace):
        if number % _REQUESTS_PER_UPDATE == 0:
            progress.update(task, completed=number)
        yield request
    progress.update(task, visible=False)


def _servable(model: str) -> str:
    """Return what engines are given: the folder of a ``config.json``, else the name itself."""
    path = Path(model)
    return str(path.parent) if path.is_file() else model


def _in_seconds(footprint: "Footprint", model: str) -> "Footprint":
    """Return ``footprint`` with its cost measured on this machine."""
    from milepost.engines.engine import Engine
    from milepost.footprint import calibrate
    from milepost.footprint.calibration import DEFAULT_LENGTHS

    with Engine.open(_servable(model), policy="none") as engine:
        limit = engine.driver.context_length or max(DEFAULT_LENGTHS)
        lengths = [length for length in DEFAULT_LENGTHS if length <= limit]
        return replace(footprint, cost=calibrate(footprint.cost, engine.measure_prefill, lengths=lengths))
