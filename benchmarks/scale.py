"""Whether a request pays for the whole cache: bookkeeping as the cache grows, beside another build.

    python -m benchmarks.bookkeeping --scale [--against FOLDER] [--requests 100000] [--figure FILE] [--json]

2,000 documents of 2,000 tokens, the first ones far more popular; prompts that follow one for 500 to 2,000
tokens and add 48 of their own; a grid of 64, states of 3.3 MB, 2 kB a token of KV, 200 GiB. FOLDER is another
checkout, such as one made by ``git worktree add FOLDER COMMIT``: both builds serve the same requests in one
run, a thousand in turn, each in a process of its own. Seconds are CPU time, garbage collection included, but
not that of what the imported libraries hold. Ctrl-C ends a long run early, and shows what was measured until
then.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["Growth", "main", "measure"]

_BLOCK = 1_000
_KEY_BYTES = 4
_SERVER = Path(__file__).with_name("scale_server.py")
# Wanted at 100,000 requests: median, 99th percentile and worst in milliseconds, all in seconds.
_WANTED = (0.7, 3.0, 25.0, 80.0)


@dataclass(slots=True)
class Growth:
    """What one build did.

    Attributes:
        name: Which build.
        seconds: CPU seconds of each request, in order.
        last: What was stored in the end.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    def milliseconds(self, share: float, *, until: int | None = None) -> float:
        """Return a quantile of the last thousand requests before ``until``; of all where ``share`` is 1."""
        served = self.seconds[:until] if share == 1.0 else self.seconds[:until][-_BLOCK:]
        return 1e3 * float(np.quantile(served, share))

    @property
    def record_bytes(self) -> float:
        """Bytes of memory for each checkpoint, beside the remembered tokens."""
        memory = self.last["resident_bytes"] - _KEY_BYTES * self.last["history_tokens"]
        return float(memory / max(1, self.last["num_checkpoints"]))


def measure(checkouts: dict[str, Path], *, num_requests: int) -> list[Growth]:
    """Serve ``num_requests`` from each build, in turns; fewer where Ctrl-C ends it early."""
    console = Console(stderr=True)
    growths = [Growth(name) for name in checkouts]
    with _servers(list(checkouts.values())) as servers, suppress(KeyboardInterrupt):
        for served in range(0, num_requests, _BLOCK):
            for growth, server in zip(growths, servers, strict=True):
                answer = _serve(server, min(_BLOCK, num_requests - served))
                growth.seconds += answer.pop("seconds")
                growth.last = answer
            console.print(f"{served + _BLOCK:,} of {num_requests:,} requests", end="\r")
    return growths


@contextmanager
def _servers(checkouts: list[Path]) -> Iterator[list["subprocess.Popen[str]"]]:
    servers = [
        subprocess.Popen(
            [sys.executable, str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout / "src")},
        )
        for checkout in checkouts
    ]
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def _serve(server: "subprocess.Popen[str]", num_requests: int) -> dict[str, Any]:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{num_requests}\n")
    server.stdin.flush()
    answer: dict[str, Any] = json.loads(server.stdout.readline())
    return answer


def main(arguments: argparse.Namespace) -> None:
    """Measure, and print one column a build."""
    checkouts = {"this build": Path(__file__).parent.parent}
    if arguments.against is not None:
        checkouts = {arguments.against.name: arguments.against.resolve(), **checkouts}
    growths = measure(checkouts, num_requests=arguments.requests)
    if arguments.json:
        for growth in growths:
            print(json.dumps({"build": growth.name, **_numbers(growth), **growth.last}))
    else:
        Console().print(_table(growths))
    if arguments.figure is not None:
        draw(growths, arguments.figure)


def _numbers(growth: Growth) -> dict[str, float]:
    return {
        "median_ms": growth.milliseconds(0.5),
        "p99_ms": growth.milliseconds(0.99),
        "worst_ms": growth.milliseconds(1.0),
        "all_s": sum(growth.seconds),
        "record_bytes": growth.record_bytes,
    }


def _table(growths: list[Growth]) -> Table:
    last = growths[-1].last
    title = f"after {len(growths[-1].seconds):,} requests, {last['num_checkpoints']:,} checkpoints"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title)
    for heading in ("CPU time of a request", *(growth.name for growth in growths), "wanted at 100,000"):
        table.add_column(heading, justify="left" if heading.startswith("CPU") else "right")
    found = [_numbers(growth) for growth in growths]
    rows = (
        ("median of the last 1,000", "median_ms", "{:.2f} ms", _WANTED[0]),
        ("99th percentile of the last 1,000", "p99_ms", "{:.1f} ms", _WANTED[1]),
        ("worst of all", "worst_ms", "{:,.0f} ms", _WANTED[2]),
        ("all requests", "all_s", "{:.0f} s", _WANTED[3]),
    )
    for name, key, form, wanted in rows:
        table.add_row(name, *(form.format(numbers[key]) for numbers in found), form.format(wanted))
    table.add_row(
        "memory: a remembered token", *[f"{_KEY_BYTES} bytes"] * len(growths), f"{_KEY_BYTES} bytes"
    )
    table.add_row("memory: all else, a checkpoint", *(f"{n['record_bytes']:,.0f} bytes" for n in found), "-")
    table.add_row("reused", *(f"{growth.last['reused_fraction']:.4f}" for growth in growths), "equal")
    return table


def draw(growths: list[Growth], path: Path) -> None:
    """Draw median, 99th percentile and worst request so far against the number of requests."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, len(growths), sharey=True, squeeze=False)[0]
    for panel, growth in zip(panels, growths, strict=True):
        marks = [m * 10**p for p in range(3, 8) for m in (1, 2, 5) if m * 10**p <= len(growth.seconds)]
        for share, name in ((1.0, "worst so far"), (0.99, "99th percentile"), (0.5, "median")):
            values = [growth.milliseconds(share, until=mark) for mark in marks]
            panel.plot(marks, values, marker="o", markersize=3, label=name)
        panel.set(xscale="log", yscale="log", title=growth.name, xlabel="requests served")
        panel.grid(visible=True, which="major", alpha=0.3)
    panels[0].set_ylabel("CPU milliseconds of a request")
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=150)
