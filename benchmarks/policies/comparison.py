"""Every policy at every point, and what follows: the best of each, the best of all, regret and means."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES
from milepost.simulator import (
    Setting,
    SimulationResult,
    SweepPoint,
    SweepProgress,
    TraceSource,
    nominal_footprint,
    sweep,
)

__all__ = ["OURS", "UPPER_BOUND", "Point", "compare", "geometric_mean"]

OURS, UPPER_BOUND = "learned", "clairvoyant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One trace at one capacity: the best run of each policy, by the policy's name."""

    trace: str
    capacity_kv_tokens: int
    ceiling_fraction: float
    best: dict[str, SimulationResult]

    @property
    def ours(self) -> SimulationResult:
        return self.best[OURS]

    @property
    def best_peer(self) -> SimulationResult:
        """The policy that reuses most in its best setting, ours and the clairvoyant aside; of equals, the one
        that comes first in the table of policies.
        """
        peers = [result for name, result in self.best.items() if name not in {OURS, UPPER_BOUND}]
        return max(peers, key=lambda result: result.reused_tokens)

    @property
    def lead(self) -> float:
        """What we reuse beyond the best peer."""
        return self.ours.reused_fraction - self.best_peer.reused_fraction

    @property
    def work_ratio(self) -> float:
        """What we compute for a token that the best peer computes: the part of the time that a policy can
        change, where a token costs the same wherever it stands.
        """
        return (1.0 - self.ours.reused_fraction) / (1.0 - self.best_peer.reused_fraction)

    @property
    def regret(self) -> float | None:
        """What knowing the future would reuse beyond us."""
        bound = self.best.get(UPPER_BOUND)
        return None if bound is None else bound.reused_fraction - self.ours.reused_fraction

    def ratio_to(self, name: str) -> float | None:
        """Return what we reuse for a token that the named policy reuses; None where there is none."""
        peer = self.best.get(name)
        if peer is None:
            return None
        return self.ours.reused_tokens / peer.reused_tokens if peer.reused_tokens else math.inf


def compare(
    folder: Path,
    families: dict[str, tuple[str, ...]],
    *,
    jobs: int,
    output: Path | None = None,
    watch: Callable[[SweepProgress], None] | None = None,
) -> list[Point]:
    """Return all points. Without ``output``, everything is computed anew and nothing is kept."""
    footprint = nominal_footprint(float(CHECKPOINT_KV_TOKENS))
    wanted = [
        (trace, capacity, name, notation)
        for trace in TRACES
        for capacity in trace.capacities
        for name, notations in families.items()
        for notation in notations
    ]
    outcome = sweep(
        [
            SweepPoint(
                TraceSource(str(trace.path_in(folder))),
                Setting(policy=notation, capacity_kv_tokens=capacity, footprint=footprint),
            )
            for trace, capacity, _, notation in wanted
        ],
        jobs=jobs,
        output=output,
        watch=watch,
    )
    best: dict[tuple[str, int], dict[str, SimulationResult]] = {}
    for (trace, capacity, name, _), result in zip(wanted, outcome.results, strict=True):
        of_point = best.setdefault((trace.title, capacity), {})
        if name not in of_point or result.reused_tokens > of_point[name].reused_tokens:
            of_point[name] = result
    return [
        Point(
            trace=title,
            capacity_kv_tokens=capacity,
            ceiling_fraction=of_point[OURS].ceiling_fraction,
            best=of_point,
        )
        for (title, capacity), of_point in best.items()
    ]


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))
