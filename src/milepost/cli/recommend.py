"""``milepost recommend``."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from milepost.cli.advice_text import print_advice
from milepost.cli.options import Json
from milepost.cli.traffic import (
    CheckpointCost,
    ModelConfig,
    SkipBadLines,
    TokenizerName,
    build_settings,
    config_of,
    report_bad_lines,
    unique,
)
from milepost.footprint import Footprint
from milepost.recommend import ENGINES, ModelLayout, layout_of, nominal_layout
from milepost.recommend import recommend as recommend_settings
from milepost.traces import TraceRequest, open_trace

__all__ = ["recommend"]

_ENGINE_NAMES = ", ".join(ENGINES)


def recommend(
    trace: Annotated[
        str,
        typer.Argument(
            metavar="TRACE",
            help="Request log: JSON lines of block hashes, token ids or request bodies, plain, .gz or .zst; "
            "'-' for standard input; or made-up traffic, such as synthetic:chat,requests=1000,seed=1.",
        ),
    ],
    model: ModelConfig = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory for states and KV together, such as 40GiB; needs --model."),
    ] = None,
    checkpoint_kv_tokens: CheckpointCost = None,
    capacity_kv_tokens: Annotated[
        str | None,
        typer.Option(metavar="N", help="The memory in tokens of KV instead, such as 400000, 400k or 1M."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help=f"Advise on this engine alone; may be given twice. One of {_ENGINE_NAMES}."),
    ] = None,
    block_size: Annotated[
        int | None,
        typer.Option(min=1, help="vLLM's attention block, as it prints at its start. Default: worked out."),
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="Replay only the first so many requests.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(help="Load the model, measure prefills, and give the saving in seconds too (slower)."),
    ] = False,
    tokenizer: TokenizerName = None,
    skip_bad_lines: SkipBadLines = False,
    as_json: Json = False,
) -> None:
    """Say what to set in the engine you have, from the requests that it serves.

    The log is replayed under every kind of policy and under the settings that each engine offers, in your
    memory. For each engine, the setting that reuses most is printed as a command line to copy, with what to
    expect of it and how much more the best policy would reuse.

    Try: `milepost recommend requests.jsonl.zst --model Qwen/Qwen3.5-4B --memory 40GiB --engine vllm`
    """
    engines = unique(engine or tuple(ENGINES))
    if unknown := [name for name in engines if name not in ENGINES]:
        raise typer.BadParameter(
            f"{unknown[0]!r} is unknown; it is one of {_ENGINE_NAMES}", param_hint="--engine"
        )
    if memory is not None and capacity_kv_tokens is not None:
        raise typer.BadParameter("give --memory or --capacity-kv-tokens, not both")
    if calibrate and model is None:
        raise typer.BadParameter("--calibrate measures a --model; give one")
    (setting,) = build_settings(
        policies=["learned"],
        capacity_kv_tokens=[capacity_kv_tokens] if capacity_kv_tokens else None,
        capacity=[memory] if memory else None,
        checkpoint_kv_tokens=checkpoint_kv_tokens,
        model=model,
    )
    footprint, layout = setting.footprint, nominal_layout(setting.footprint)
    if model is not None:
        layout = layout_of(config_of(model)) or layout
    if calibrate and model is not None:
        footprint = _in_seconds(footprint, model)
    if block_size is not None:
        layout = ModelLayout(block_size, layout.pages_per_state)
    opened = open_trace(trace, tokenizer=tokenizer, skip_bad_lines=skip_bad_lines)
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

        def watch(requests: Sequence[TraceRequest], label: str) -> Iterable[TraceRequest]:
            return progress.track(requests, total=len(requests), description=label)

        advice = recommend_settings(
            opened,
            footprint=footprint,
            capacity_kv_tokens=setting.capacity_kv_tokens,
            model=None if model is None else _servable(model),
            memory_bytes=setting.capacity_kv_tokens * setting.unit_bytes if memory else None,
            layout=layout,
            engines=engines,
            max_requests=max_requests,
            watch=watch,
        )
    report_bad_lines(opened.name, opened.num_bad_lines, opened.bad_lines, errors)
    if as_json:
        print(json.dumps(advice.as_json(), indent=2))
        return
    print_advice(advice, Console())


def _servable(model: str) -> str:
    """Return what engines are given: the folder of a ``config.json``, else the name itself."""
    path = Path(model)
    return str(path.parent) if path.is_file() else model


def _in_seconds(footprint: Footprint, model: str) -> Footprint:
    """Return ``footprint`` with its cost measured on this machine."""
    from milepost.engines.transformers.engine import Engine
    from milepost.footprint import calibrate
    from milepost.footprint.calibration import DEFAULT_LENGTHS

    with Engine.open(_servable(model), policy="none") as engine:
        limit = engine.driver.context_length or max(DEFAULT_LENGTHS)
        lengths = [length for length in DEFAULT_LENGTHS if length <= limit]
        return replace(footprint, cost=calibrate(footprint.cost, engine.measure_prefill, lengths=lengths))
