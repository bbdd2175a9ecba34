"""``python -m benchmarks.frontier``: see the package."""

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import Progress

from benchmarks.frontier.measuring import FrontierRun, budgets_of, measure_workload
from benchmarks.frontier.replaying import rows_of_replay
from benchmarks.frontier.rows import rows_of
from benchmarks.frontier.workloads import FrontierWorkload, made_up_workloads, paper_workloads
from benchmarks.layer_group import build_layer_group
from benchmarks.printing import Row, print_rows
from milepost.engines.engine import Engine
from milepost.report.frontier_file import FORMAT

_VOCABULARY_SIZE = 1024
_POLICIES = ("learned", "histogram-dp:4", "balanced:4", "vllm", "marconi")
_SHARES = (0.2, 0.5, 1.0)
_SHORTER, _SEGMENT_TOKENS = 4, 64


def main() -> None:
    """Measure, print and write."""
    options = _options()
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
    workloads = [] if options.logs is None else paper_workloads(options.logs, **sizes)
    workloads += made_up_workloads(**sizes)
    if options.workloads:
        workloads = [each for each in workloads if each.name in options.workloads]
    if options.replay:
        rows = [row for workload in workloads for row in _replayed(workload, engine, options)]
        print_rows(rows, as_json=options.json)
        return
    runs = _measure(workloads, engine, options)
    if options.output is not None:
        options.output.write_text(json.dumps(_as_json(workloads, runs, engine, options, device), indent=1))
    print_rows(rows_of(runs), as_json=options.json)


def _measure(
    workloads: Sequence[FrontierWorkload], engine: Engine, options: argparse.Namespace
) -> dict[str, list[FrontierRun]]:
    runs = {}
    # The device and its libraries warm up on what is measured nowhere.
    engine.sibling(capacity="64MB", policy="none").generate(list(range(3, 900)), max_new_tokens=1)
    with Progress(console=Console(stderr=True)) as progress:
        for workload in workloads:
            budgets = budgets_of(workload, engine.footprint, options.shares)
            num_engines = 1 + len(options.policies) * len(budgets)
            total = options.turns * num_engines * len(workload.requests)
            task = progress.add_task(workload.title, total=total)
            runs[workload.name] = measure_workload(
                workload,
                engine,
                policies=options.policies,
                budgets=budgets,
                num_turns=options.turns,
                on_request=lambda task=task: progress.advance(task),  # type: ignore[misc]
            )
    return runs


def _replayed(workload: FrontierWorkload, engine: Engine, options: argparse.Namespace) -> list[Row]:
    return rows_of_replay(
        workload,
        engine.footprint,
        policies=options.policies,
        budgets=budgets_of(workload, engine.footprint, options.shares),
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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frontier",
        description="What a byte of memory buys in time: policies under several budgets, capture included.",
    )
    parser.add_argument(
        "--logs",
        type=Path,
        metavar="DIR",
        help="folder of the paper's logs; without it, made-up traffic alone",
    )
    parser.add_argument("--full", action="store_true", help="published sizes and lengths, for a GPU")
    parser.add_argument(
        "--requests", type=int, default=40, help="requests of each workload (40; the paper has 400)"
    )
    parser.add_argument("--turns", type=int, default=2, help="times that everything is measured")
    parser.add_argument(
        "--policies", nargs="+", default=list(_POLICIES), help="names, as milepost simulate takes them"
    )
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=list(_SHARES),
        help="budgets, as shares of what holds all prompts that the paper's cache holds",
    )
    parser.add_argument(
        "--workloads", nargs="+", metavar="NAME", help="some of quality, system_prompts, agents, unique"
    )
    parser.add_argument(
        "--replay", action="store_true", help="run no model: what is saved, not how long it takes"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON that milepost report draws")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
