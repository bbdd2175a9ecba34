"""Time first: how long requests wait for their first token, and how many tokens a second come out.

    python -m benchmarks.vllm.timing [--workload NAME ...] [--turns N] [--trace LOG] [--quick] [--json]

Stock vLLM and the plugin run in one process, with the same model, pool and requests, a step of the one after
a step of the other, so that whatever else a machine does meets both alike. Each has a clock of its own, which
runs only while that one works: CPU seconds of the process, all of it on one core. A turn is a process, so
both start cold; the ratios shown are medians over the turns.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.printing import Row, print_rows
from benchmarks.vllm import options
from benchmarks.vllm.child import call
from benchmarks.vllm.comparing.comparison import first_spec
from benchmarks.vllm.comparing.run import WARM_UP_TOKENS, RunSpec, engine_arguments
from benchmarks.vllm.servers.serving import Served, Server, serving, warm_up
from benchmarks.vllm.servers.settings import MILEPOST, STOCK
from benchmarks.vllm.traffic.asks import Workload

__all__ = ["Pair", "TimedWorkload", "Timing", "claims", "measure", "print_timed", "time_at_each"]

_TABLE_COLUMNS = 150
_CLAIMS = (
    ("ttft_p50_seconds", "first token p50", 1.02, True),
    ("ttft_p95_seconds", "first token p95", 1.02, True),
    ("tokens_per_second", "tokens a second", 0.99, False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one of the two took."""

    ttft_p50_seconds: float
    ttft_p95_seconds: float
    tokens_per_second: float
    cpu_seconds: float
    cached_tokens: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One turn of both."""

    stock: Timing
    plugin: Timing
    stop_tokens: int

    def ratio(self, name: str) -> float:
        """Return the plugin's figure over stock's."""
        return float(getattr(self.plugin, name) / max(1e-9, getattr(self.stock, name)))


@dataclass(slots=True)
class _Clock:
    """Seconds that were spent on one server, those under way included."""

    seconds: float = 0.0
    _since: float | None = field(default=None)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._since = time.process_time()
        try:
            yield
        finally:
            self.seconds, self._since = self(), None

    def __call__(self) -> float:
        return self.seconds + (0.0 if self._since is None else time.process_time() - self._since)


def measure(spec: RunSpec) -> Pair:
    """Run a workload under both. It needs a process of its own."""
    from benchmarks.vllm.models import MODELS
    from benchmarks.vllm.servers.model_server import ModelServer

    MODELS[spec.model].prepare_vllm()
    servers: list[Server] = []
    for setting in (STOCK, MILEPOST):
        first = ModelServer(engine_arguments(replace(spec, setting=setting)))
        if first.scheduler.block_size != spec.block_tokens:
            # The pool is told in blocks, and only vLLM knows how long they are.
            raise RuntimeError(f"vLLM chose blocks of {first.scheduler.block_size}, not {spec.block_tokens}")
        warm_up(first, num_tokens=WARM_UP_TOKENS)
        servers.append(first)
    clocks = [_Clock(), _Clock()]
    running = [
        serving(spec.workload, server, concurrency=spec.concurrency, clock=clock)
        for server, clock in zip(servers, clocks, strict=True)
    ]
    served: list[list[Served]] = [[], []]
    steps = [0, 0]
    todo = [0, 1]
    while todo:
        # By turns first, so that neither always meets the other's data in the processor's caches.
        for which in list(todo):
            with clocks[which].running():
                ended = next(running[which], None)
            steps[which] += 1
            if ended is not None:
                served[which] = ended
                todo.remove(which)
        todo.reverse()
    plugin = servers[1].scheduler.checkpoint_manager  # type: ignore[attr-defined]
    stock_timing, plugin_timing = map(_timing, served, clocks, steps)
    return Pair(stock=stock_timing, plugin=plugin_timing, stop_tokens=plugin.step_cost.stop_tokens)


def _timing(served: Sequence[Served], clock: _Clock, num_steps: int) -> Timing:
    waits = [request.ttft_seconds for request in served]
    num_tokens = sum(len(request.prompt) + len(request.answer) for request in served)
    return Timing(
        ttft_p50_seconds=float(np.percentile(waits, 50)),
        ttft_p95_seconds=float(np.percentile(waits, 95)),
        tokens_per_second=num_tokens / clock.seconds,
        cpu_seconds=clock.seconds,
        cached_tokens=sum(request.cached_tokens for request in served),
        num_steps=num_steps,
    )


def time_workload(
    workload: Workload, *, model: str, folder: Path, concurrency: int, num_turns: int
) -> list[Pair]:
    """Return a pair for each turn."""
    spec = first_spec(workload, model=model, folder=folder)
    block_tokens = workload.block_tokens or call("benchmarks.vllm.timing:block_tokens_of", spec)
    spec = replace(spec, block_tokens=block_tokens, concurrency=concurrency)
    return [call("benchmarks.vllm.timing:measure", spec) for _ in range(num_turns)]


def block_tokens_of(spec: RunSpec) -> int:
    """Return the block size that vLLM chooses for a model. It needs a process of its own."""
    from benchmarks.vllm.models import MODELS
    from benchmarks.vllm.servers.model_server import ModelServer

    MODELS[spec.model].prepare_vllm()
    return int(ModelServer(engine_arguments(spec)).scheduler.block_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedWorkload:
    """All turns of a workload, with so many requests at a time."""

    workload: str
    concurrency: int
    pairs: tuple[Pair, ...]


def time_at_each(
    workload: Workload, *, model: str, folder: Path, concurrencies: Sequence[int], num_turns: int
) -> list[TimedWorkload]:
    """Return the turns of a workload at each concurrency."""
    return [
        TimedWorkload(
            workload=workload.name,
            concurrency=concurrency,
            pairs=tuple(
                time_workload(
                    workload, model=model, folder=folder, concurrency=concurrency, num_turns=num_turns
                )
            ),
        )
        for concurrency in concurrencies
    ]


def claims(timed: Sequence[TimedWorkload]) -> list[Row]:
    """Return whether requests wait no longer than with stock vLLM, and as many tokens come out."""
    return [
        Row(
            name=f"{each.workload}, {each.concurrency} at a time: {what} / stock",
            measured=f"{(value := _middle(each.pairs, name)):.3f}",
            target=f"<= {limit}" if is_most else f">= {limit}",
            reached=value <= limit if is_most else value >= limit,
            numbers={"value": value},
        )
        for each in timed
        for name, what, limit, is_most in _CLAIMS
    ]


def print_timed(timed: Sequence[TimedWorkload], *, as_json: bool) -> None:
    """Print the turns as JSON lines, or a table."""
    if not as_json:
        Console(width=_TABLE_COLUMNS).print(table(timed))
        return
    for each in timed:
        for pair in each.pairs:
            record = {"workload": each.workload, "at_a_time": each.concurrency} | asdict(pair)
            print(json.dumps(record), flush=True)


def table(rows: Sequence[TimedWorkload]) -> Table:
    """Return a row for each workload and concurrency: time first, cached tokens second."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    headings = ("workload", "at a time", "first token p50", "x stock", "p95", "x stock", "tokens/s x stock")
    headings += ("CPU s", "steps x", "cached x", "a stop")
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if number else "left")
    for row in rows:
        pairs, first = row.pairs, row.pairs[0]
        shown.add_row(
            row.workload,
            str(row.concurrency),
            f"{first.stock.ttft_p50_seconds * 1e3:.0f} -> {first.plugin.ttft_p50_seconds * 1e3:.0f} ms",
            f"{_middle(pairs, 'ttft_p50_seconds'):.3f}",
            f"{first.stock.ttft_p95_seconds * 1e3:.0f} -> {first.plugin.ttft_p95_seconds * 1e3:.0f} ms",
            f"{_middle(pairs, 'ttft_p95_seconds'):.3f}",
            f"{_middle(pairs, 'tokens_per_second'):.3f}",
            f"{first.stock.cpu_seconds:.1f} -> {first.plugin.cpu_seconds:.1f}",
            f"{_middle(pairs, 'num_steps'):.3f}",
            f"{_middle(pairs, 'cached_tokens'):.2f}" if first.stock.cached_tokens else "",
            f"{first.stop_tokens:,} tokens",
        )
    return shown


def _middle(pairs: Sequence[Pair], name: str) -> float:
    return median(pair.ratio(name) for pair in pairs)


def main() -> None:
    """Time the named workloads, or all."""
    parser = options.new_parser("benchmarks.vllm.timing", __doc__)
    options.take_workloads(parser)
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="turns of both: 3")
    arguments = options.parse(parser)
    from benchmarks.vllm.traffic.workloads import WORKLOADS

    chosen = options.chosen_workloads(parser, arguments, default=list(WORKLOADS))
    timed: list[TimedWorkload] = []
    with options.built_model(arguments.model) as folder:
        for workload in chosen:
            now = time_at_each(
                workload,
                model=arguments.model,
                folder=folder,
                concurrencies=arguments.concurrency,
                num_turns=1 if arguments.quick else arguments.turns,
            )
            print_timed(now, as_json=arguments.json)
            timed += now
    print_rows(claims(timed), as_json=arguments.json)


if __name__ == "__main__":
    main()
