"""``python -m benchmarks.frontier``: see the package."""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import Progress

from benchmarks.frontier.command_line import parse_options
from benchmarks.frontier.measuring import OURS, FrontierRun, budgets_of, measure_workload
from benchmarks.frontier.replaying import rows_of_replay
from benchmarks.frontier.rows import rows_of
from benchmarks.frontier.workloads import FrontierWorkload, made_up_workloads, paper_workloads
from benchmarks.layer_group import build_layer_group
from benchmarks.printing import Row, print_rows
from milepost.engines.engine import Engine
from milepost.errors import MilepostError
from milepost.report.frontier_file import FORMAT
from milepost.whole_file import written_whole

_VOCABULARY_SIZE = 1024
_SHORTER, _SEGMENT_TOKENS = 4, 64


def main() -> None:
    """Measure, print and write."""
    options = parse_options()
    try:
        rows = _rows(options)
    except MilepostError as error:
        sys.exit(f"frontier: {error}")
    print_rows(rows, as_json=options.json)
    sys.exit(any(row.numbers.get("different") for row in rows))


def _rows(options: argparse.Namespace) -> list[Row]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = build_layer_group(dtype, is_full=options.full).to(device)
    engine = Engine.open(
        model,
        policy="none",
        segment_tokens=None if options.full else _SEGMENT_TOKENS,
        max_running=1,
    )
    shorter = 1 if options.full else _SHORTER
    sizes = {"shorter": shorter, "num_requests": options.requests, "vocabulary_size": _VOCABULARY_SIZE}
    workloads = (
        [] if options.logs is None else paper_workloads(options.logs, names=options.workloads, **sizes)
    )
    workloads += [each for each in made_up_workloads(**sizes) if each.name in options.workloads]
    budgets = {each.name: budgets_of(each, engine.footprint, options.shares) for each in workloads}
    # Too small a budget is an error, which an hour later would cost an hour.
    for capacity in {min(each) for each in budgets.values()}:
        engine.sibling(capacity=capacity, policy=OURS)
    if options.replay:
        return [
            row for each in workloads for row in _replayed(each, engine, options, budgets=budgets[each.name])
        ]
    runs: dict[str, list[FrontierRun]] = {}
    # The device and its libraries warm up on what is measured nowhere.
    warming = [3 + index % (_VOCABULARY_SIZE - 3) for index in range(900)]
    engine.sibling(capacity="64MB", policy="none").generate(warming, max_new_tokens=1)
    with Progress(console=Console(stderr=True)) as progress:
        for number, workload in enumerate(workloads, 1):
            runs[workload.name] = _measure(
                workload, engine, options, budgets=budgets[workload.name], progress=progress
            )
            if options.output is not None:
                _write(options.output, _as_json(workloads[:number], runs, engine, options, device))
    return rows_of(runs)


def _measure(
    workload: FrontierWorkload,
    engine: Engine,
    options: argparse.Namespace,
    *,
    budgets: Sequence[int],
    progress: Progress,
) -> list[FrontierRun]:
    num_engines = 1 + len(options.policies) * len(budgets)
    total = options.turns * num_engines * len(workload.requests)
    task = progress.add_task(workload.title, total=total)
    return measure_workload(
        workload,
        engine,
        policies=options.policies,
        budgets=budgets,
        num_turns=options.turns,
        on_request=lambda: progress.advance(task),
    )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write all of it or nothing: what was measured before is not lost to what breaks off."""
    with written_whole(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1))


def _replayed(
    workload: FrontierWorkload, engine: Engine, options: argparse.Namespace, *, budgets: Sequence[int]
) -> list[Row]:
    return rows_of_replay(
        workload,
        engine.footprint,
        policies=options.policies,
        budgets=budgets,
        segment_tokens=engine.segment_tokens,
    )


def _as_json(
    workloads: Sequence[FrontierWorkload],
    runs: Mapping[str, Sequence[FrontierRun]],
    engine: Engine,
    options: argparse.Namespace,
    device: str,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "machine": torch.cuda.get_device_name()
        if device == "cuda"
        else f"{torch.get_num_threads()} CPU threads",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "model": "layer group of Qwen3.5-0.8B" + ("" if options.full else ", a fourth of its state"),
        "checkpoint_bytes": engine.footprint.checkpoint_bytes,
        "kv_bytes_per_token": engine.footprint.kv_bytes_per_token,
        "segment_tokens": engine.segment_tokens,
        "workloads": [
            {
                "name": workload.name,
                "title": workload.title,
                "num_requests": len(workload.requests),
                "mean_tokens": workload.mean_tokens,
                "runs": [run.as_json() for run in runs[workload.name]],
            }
            for workload in workloads
        ],
    }


if __name__ == "__main__":
    main()
