"""The same traces with states, and KV, in the larger blocks that engines have; and what placement adds to
eviction.

A hybrid's block in vLLM is 400 to 8,000 tokens, since a block of KV is as large as a state. So each policy
is replayed with states and KV at the trace's own blocks, and at multiples of 512 and of 1,024 tokens. Stock
vLLM is what it is only at the coarse ones; Milepost can be at the fine ones as well, in an engine that keeps
states there (its own; vLLM with ``--prefix-match-unit``).

The ablation takes one step at a time: tail and junction, least recently used first; the same positions, with
what the learned policy evicts; then its positions too.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.policies.comparison import geometric_mean
from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES, BenchmarkTrace
from benchmarks.printing import Row
from milepost.simulator import Setting, SweepPoint, SweepProgress, TraceSource, nominal_footprint, sweep

__all__ = [
    "COARSE",
    "LADDER",
    "POLICIES",
    "GridPoint",
    "granularity_rows",
    "measure_granularity",
    "measure_on_grid",
]

#: One step at a time, from what engines do to the learned policy.
LADDER = ("tail+junction", "tail+junction/learned", "learned")
POLICIES = ("vllm", "marconi", "tail", "junction", *LADDER)
#: Multiples that states and KV sit at beside the traces' own blocks.
COARSE = (512, 1024)
_TOLERANCE = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPoint:
    """One trace at one capacity on one grid: what each policy reuses, by its notation."""

    trace: str
    capacity_kv_tokens: int
    grid: int
    is_own: bool
    ceiling_fraction: float
    reused: dict[str, float]

    @property
    def from_eviction(self) -> float:
        """What learned eviction adds to tail and junction."""
        return self.reused[LADDER[1]] - self.reused[LADDER[0]]

    @property
    def from_placement(self) -> float:
        """What learned positions add to that."""
        return self.reused[LADDER[2]] - self.reused[LADDER[1]]


def measure_granularity(
    folder: Path,
    *,
    jobs: int,
    output: Path | None = None,
    watch: Callable[[SweepProgress], None] | None = None,
) -> list[GridPoint]:
    """Return all points, trace by trace, capacity by capacity, the finest grid first."""

    def on_grid(grid: int | None) -> list[GridPoint]:
        return measure_on_grid(folder, grid, policies=POLICIES, jobs=jobs, output=output, watch=watch)

    found = [point for grid in (None, *COARSE) for point in on_grid(grid)]
    order = [trace.title for trace in TRACES]
    return sorted(found, key=lambda point: (order.index(point.trace), point.capacity_kv_tokens, point.grid))


def granularity_rows(points: Sequence[GridPoint]) -> list[Row]:
    """Return one row a granularity for the lead over stock vLLM, and one for where it comes from."""
    return [row for name, on_grid in _by_granularity(points) for row in _rows(name, on_grid)]


def measure_on_grid(
    folder: Path,
    grid: int | None,
    *,
    policies: Sequence[str],
    jobs: int,
    checkpoint_kv_tokens: int = CHECKPOINT_KV_TOKENS,
    max_requests: int | None = None,
    output: Path | None = None,
    watch: Callable[[SweepProgress], None] | None = None,
) -> list[GridPoint]:
    """Return the points of one grid, None for each trace's own blocks; traces that have larger blocks are
    left out.

    Args:
        folder: Of the traces.
        grid: States and KV sit at multiples of this many tokens.
        policies: By their notation.
        jobs: Processes at once.
        checkpoint_kv_tokens: What a state costs; 0 for a model that has none.
        max_requests: Only so many of each trace, the first.
        output: Keeps finished runs.
        watch: Told how far it is.
    """
    footprint = nominal_footprint(float(checkpoint_kv_tokens))
    places: list[tuple[BenchmarkTrace, int]] = [
        (trace, capacity)
        for trace in TRACES
        if grid is None or grid > trace.block_tokens
        for capacity in trace.capacities
    ]
    outcome = sweep(
        [
            SweepPoint(
                TraceSource(str(trace.path_in(folder)), max_requests=max_requests),
                Setting(policy=policy, capacity_kv_tokens=capacity, footprint=footprint),
            )
            for trace, capacity in places
            for policy in policies
        ],
        jobs=jobs,
        grid=grid,
        output=output,
        watch=watch,
    )
    found = []
    for index, (trace, capacity) in enumerate(places):
        results = outcome.results[index * len(policies) : (index + 1) * len(policies)]
        found.append(
            GridPoint(
                trace=trace.title,
                capacity_kv_tokens=capacity,
                grid=grid or trace.block_tokens,
                is_own=grid is None,
                ceiling_fraction=results[0].ceiling_fraction,
                reused={result.policy: result.reused_fraction for result in results},
            )
        )
    return found


def _by_granularity(points: Sequence[GridPoint]) -> Iterator[tuple[str, list[GridPoint]]]:
    yield "at the trace's blocks", [point for point in points if point.is_own]
    for grid in COARSE:
        yield f"at {grid:,}", [point for point in points if point.grid == grid]


def _rows(name: str, points: Sequence[GridPoint]) -> Iterator[Row]:
    ratios = [point.reused["learned"] / point.reused["vllm"] for point in points]
    leads = [point.reused["learned"] - point.reused["vllm"] for point in points]
    yield Row(
        name=f"policies {name}, learned / vllm",
        measured=f"{geometric_mean(ratios):.3f}, geometric mean of {len(points)}; "
        f"least lead {min(leads):+.4f}",
        target=f">= vllm - {_TOLERANCE} everywhere",
        reached=min(leads) >= -_TOLERANCE,
        numbers={"geometric_mean": geometric_mean(ratios), "least_lead": min(leads)},
    )
    eviction = fmean(point.from_eviction for point in points)
    placement = fmean(point.from_placement for point in points)
    yield Row(
        name=f"policies {name}, eviction and placement",
        measured=f"learned eviction {eviction:+.4f}, then learned positions {placement:+.4f}, means",
        target="both add",
        reached=min(eviction, placement) > 0.0,
        numbers={"from_eviction": eviction, "from_placement": placement},
    )
