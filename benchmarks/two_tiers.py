"""What a slower tier adds to a small memory, and whether positions should be planned at its price too.

    python -m benchmarks.two_tiers [--traces DIR] [--times 10]

Replays workloads (synthetic ones without ``--traces``) on a memory of one size alone; with a tier below that
holds ``--times`` as much and gives a byte back in no time; and with that, states captured also where the
slower tier's policy, at its own price, would have them. Printed: the share of prompt tokens reused, and how
many states were captured for each request.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES
from milepost.hosted_cache import HostedCache
from milepost.placement import Placement
from milepost.policies import learned
from milepost.simulator import TraceSource, nominal_footprint
from milepost.store import ContentlessPayloads
from milepost.tiers import HeldShelf, Speed, Tier, TieredCache
from milepost.tiers.handles import Payloads

_SYNTHETIC = (
    ("synthetic:documents,requests=600,seed=1", (50_000, 200_000)),
    ("synthetic:chat,requests=800,seed=2", (25_000, 100_000)),
    ("synthetic:agents,requests=400,seed=3", (50_000, 200_000)),
)
_GRID = 64


def main() -> None:
    """Replay, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--traces", type=Path, metavar="DIR")
    parser.add_argument("--times", type=int, default=10, help="the slower tier, in times of memory")
    arguments = parser.parse_args()
    table = Table(box=SIMPLE_HEAD)
    for name in ("workload", "memory", "memory alone", "two tiers", "planned at both prices"):
        table.add_column(name)
    for source, capacity in _settings(arguments.traces):
        cells = []
        for times, plans_below in ((0, False), (arguments.times, False), (arguments.times, True)):
            reused, captured = _replay(source, capacity, times=times, plans_below=plans_below)
            cells.append(f"{reused:.3f} ({captured:.2f})")
        table.add_row(source.rsplit("/", 1)[-1], f"{capacity:,}", *cells)
    Console(width=140).print(table)


def _settings(traces: Path | None) -> Sequence[tuple[str, int]]:
    if traces is None:
        return [(source, capacity) for source, capacities in _SYNTHETIC for capacity in capacities]
    return [(str(trace.path_in(traces)), capacity) for trace in TRACES for capacity in trace.capacities]


def _replay(source: str, capacity: int, *, times: int, plans_below: bool) -> tuple[float, float]:
    """Return the share of prompt tokens that was reused, and states captured for each request."""
    footprint = nominal_footprint(float(CHECKPOINT_KV_TOKENS))
    num_bytes, computing = capacity * footprint.kv_bytes_per_token, Speed()
    options = {"footprint": footprint, "grid": _GRID, "segment_tokens": _GRID}
    memory = HostedCache(capacity_bytes=num_bytes, policy=learned(), **options)
    payloads = ContentlessPayloads(footprint, segment_tokens=_GRID)
    cache: HostedCache | TieredCache = memory
    if times:
        shelf = HeldShelf(offload=lambda each: (each, 0), reload=lambda each: each or object())
        tier = Tier(
            "below", shelf, capacity_bytes=times * num_bytes, policy=learned(), computing=computing, **options
        )
        cache = TieredCache(memory, [tier], computing=computing)
    captured, numbers = 0, dict[int, int]()
    for request in TraceSource(source).open():
        # A chained block hash stands for its tokens as well as they would for themselves.
        keys = [numbers.setdefault(key, len(numbers)) for key in request.keys.tolist()]
        tokens = np.repeat(np.asarray(keys, np.int32), request.key_tokens)
        if not tokens.size:
            continue
        with cache.acquire(tokens, tenant=request.tenant) as lease:
            planned = cache.plan(lease)
            if not plans_below:
                cache.commit(lease, planned, payloads)
                captured += len(planned.positions)
                continue
            below = lease.beside
            memory.commit(lease, planned, payloads)
            deeper = [each for each in tier.cache.plan(below).positions if each > lease.resume_position]
            positions = sorted({*planned.positions, *deeper})
            tier.commit(
                below, Placement(tuple(positions)).positions, Payloads(payloads, segment_tokens=_GRID)
            )
            captured += len(positions)
    totals = memory.statistics()
    return totals.reused_fraction, captured / totals.num_requests


if __name__ == "__main__":
    main()
