"""A comparison as a table, and as JSON lines."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.vllm.comparing.comparison import Comparison
from benchmarks.vllm.comparing.run import Measurement

__all__ = ["records", "table"]

_HEADINGS = (
    "setting",
    "cached",
    "x stock",
    "states held",
    "most",
    "kept",
    "steps",
    "chunks",
    "TTFT p50",
    "p95",
    "tokens/s",
    "CPU",
    "x stock",
    "same answers",
)


def table(comparison: Comparison) -> Table:
    """Return a row for each setting.

    Of the turns of a setting, which differ in their times only, the fastest is shown. ``cached`` is of the
    tokens that an earlier request had computed; ``same answers`` is of the prompts that were the same.
    """
    workload, stock = comparison.workload, comparison.stock
    mean_tokens, shareable = (
        stock.prompt_tokens / stock.num_requests,
        stock.shareable_tokens / stock.prompt_tokens,
    )
    title = (
        f"{workload.name}, {comparison.concurrency} at a time: {stock.num_requests} requests of "
        f"{mean_tokens:,.0f} tokens, {shareable:.0%} shareable; "
        f"{stock.num_blocks} blocks of {stock.block_tokens} tokens"
    )
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for number, heading in enumerate(_HEADINGS):
        shown.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for label in comparison.runs:
        shown.add_row(label, *_cells(comparison, label, comparison.fastest(label)))
    return shown


def _cells(comparison: Comparison, label: str, run: Measurement) -> Iterator[str]:
    stock = comparison.stock
    yield f"{run.cached_fraction:.1%}"
    yield f"{run.cached_tokens / stock.cached_tokens:.2f}" if stock.cached_tokens else ""
    yield f"{run.mean_states_held:.0f}"
    yield str(run.max_states_held)
    yield str(run.num_states_kept)
    yield f"{run.num_steps:,}"
    yield f"{run.num_prefill_chunks:,}"
    yield f"{run.ttft_p50_seconds * 1e3:,.0f} ms"
    yield f"{run.ttft_p95_seconds * 1e3:,.0f} ms"
    yield f"{run.prompt_tokens / run.wall_seconds:,.0f}"
    yield f"{run.cpu_seconds:.1f} s"
    yield f"{comparison.throughput_ratio(label):.2f}"
    flips, compared = run.flips_from(stock)
    yield f"{compared - flips}/{compared}"


def records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield each run as what JSON can hold, without the answers but with how many differ from stock's."""
    for runs in comparison.runs.values():
        for run in runs:
            record = asdict(run)
            del record["answers"]
            flips, compared = run.flips_from(comparison.stock)
            yield record | {"answers_compared": compared, "answers_that_differ": flips}
