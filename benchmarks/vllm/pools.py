"""What stock vLLM and the plugin cache in pools of all sizes: with vLLM's own schedulers, and no model.

    python -m benchmarks.vllm.pools [--workload NAME ...] [--model NAME] [--trace LOG] [--quick] [--json]

The model lends its cache layout only. Stock vLLM counts with its default and with the best of all its
settings, chosen after the fact for each pool. In `python -m benchmarks.vllm` the same schedulers run with the
model, in one pool a workload, and everything else is measured too.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.printing import Row, print_rows
from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.comparing.choice import BareResult, Question
from benchmarks.vllm.comparing.comparison import first_spec
from benchmarks.vllm.servers.settings import MILEPOST, STOCK, candidates
from benchmarks.vllm.traffic.asks import Workload

__all__ = ["measure"]

_WORKLOADS = ("documents", "chat", "system-prompt", "unique")
# Of the workload's own pool, which counts as small.
_SIZES = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_LEAST_OVER_BEST = 1.15


def measure(workload: Workload, *, model: str, folder: Path, concurrencies: Sequence[int]) -> list[Row]:
    """Return a row for each pool and concurrency."""
    pools_tokens = tuple(int(workload.pool_tokens * size) for size in _SIZES)
    _, results = call(
        "benchmarks.vllm.comparing.choice:try_all",
        Question(
            spec=first_spec(workload, model=model, folder=folder),
            settings=(STOCK, *candidates(), MILEPOST),
            concurrencies=tuple(concurrencies),
            pools_tokens=pools_tokens,
        ),
    )
    return [
        _row(
            workload,
            [each for each in results if (each.pool_tokens, each.concurrency) == (pool_tokens, concurrency)],
        )
        for concurrency in concurrencies
        for pool_tokens in pools_tokens
    ]


def _row(workload: Workload, results: Sequence[BareResult]) -> Row:
    stock, *others, plugin = results
    best = max((stock, *others), key=lambda each: each.cached_tokens)
    is_small = stock.pool_tokens <= workload.pool_tokens
    if not workload.shares_prefixes:
        target, wanted = ">= stock", float(stock.cached_tokens)
    elif is_small:
        target, wanted = f">= {_LEAST_OVER_BEST} of the best of stock", best.cached_tokens * _LEAST_OVER_BEST
    else:
        target, wanted = "reported: there is room", 0.0
    return Row(
        name=f"{workload.name}, {stock.concurrency} at a time, pool of {stock.pool_tokens:,} tokens",
        measured=f"{_fraction(plugin):.1%}; stock {_fraction(stock):.1%}, best {_fraction(best):.1%} "
        f"({best.setting.label})",
        target=target,
        reached=plugin.cached_tokens >= wanted,
        numbers={
            "pool_tokens": stock.pool_tokens,
            "concurrency": stock.concurrency,
            "plugin": _fraction(plugin),
            "stock": _fraction(stock),
            "best_stock": _fraction(best),
            "best_setting": best.setting.label,
            "plugin_steps": plugin.num_steps,
            "stock_steps": stock.num_steps,
            "best_stock_steps": best.num_steps,
        },
    )


def _fraction(result: BareResult) -> float:
    return result.cached_tokens / result.shareable_tokens if result.shareable_tokens else 0.0


def main() -> None:
    """Compare on the named workloads, or all whose pool is small."""
    parser = options.new_parser("benchmarks.vllm.pools", __doc__)
    options.take_workloads(parser)
    arguments = options.parse(parser)
    chosen = options.chosen_workloads(parser, arguments, default=_WORKLOADS)
    with options.built_model(arguments.model) as folder:
        rows = [
            row
            for workload in chosen
            for row in measure(
                workload, model=arguments.model, folder=folder, concurrencies=arguments.concurrency
            )
        ]
    print_rows(rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
