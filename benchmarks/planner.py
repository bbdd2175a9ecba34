"""Time the exact planner against the recurrence in vectorised numpy, and show how it scales.

    python -m benchmarks.planner [--json] [--quick]

All numbers come from one run on one machine: medians of repeats after a warm-up that compiles the kernels,
ratios between medians of the same size. Nothing is extrapolated. Depths are random and weights are of two
kinds: irregular (random) and smooth (all equal), since the envelope is short on one and long on the other.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.printing import Row
from milepost.placement import plan_budgets, plan_priced

HEADLINE_DEPTHS, HEADLINE_BUDGET = 16_384, 32
SEED = 7

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Timing:
    """One measured size: milliseconds are medians over ``repeats``."""

    weights: str
    num_depths: int
    max_budget: int
    repeats: int
    planner_ms: float
    nanoseconds_per_cell: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The planner and the numpy recurrence, plain and tuned, on one problem, with the same answer."""

    weights: str
    num_depths: int
    max_budget: int
    planner_ms: float
    numpy_ms: float
    tuned_numpy_ms: float
    ratio: float
    ratio_to_tuned: float


@dataclass(frozen=True, slots=True)
class Report:
    """All that one run measured."""

    machine: str
    headline: list[Timing] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    scaling_in_depths: list[Timing] = field(default_factory=list)
    scaling_in_budget: list[Timing] = field(default_factory=list)
    priced: list[Timing] = field(default_factory=list)


def problem(num_depths: int, weights: str) -> tuple[IntArray, FloatArray]:
    random = np.random.default_rng(SEED)
    depths = np.sort(random.choice(np.arange(1, 8 * num_depths), num_depths, replace=False))
    return depths, np.ones(num_depths) if weights == "smooth" else random.random(num_depths)


def numpy_recurrence(depths: IntArray, weights: FloatArray, max_budget: int) -> FloatArray:
    """The recurrence as it is written, each cell one vectorised maximum: O(max_budget * num_depths ** 2).

    Parents are kept: positions are read off them.
    """
    gains = depths.astype(np.float64)
    shares = np.concatenate(([0.0], np.cumsum(weights)))
    saving = np.zeros((max_budget + 1, shares.size))
    parents = np.zeros((max_budget, shares.size), np.int32)
    for layer in range(max_budget):
        for j in range(1, shares.size):
            heights = saving[layer, :j] + gains[:j] * (shares[j] - shares[:j])
            best = heights.argmax()
            parents[layer, j] = best
            saving[layer + 1, j] = heights[best]
    return saving[:, -1]


def tuned_numpy_recurrence(depths: IntArray, weights: FloatArray, max_budget: int) -> FloatArray:
    """The same with intercepts computed once a layer and no allocation in the loop."""
    gains = depths.astype(np.float64)
    shares = np.concatenate(([0.0], np.cumsum(weights)))
    previous, current = np.zeros(shares.size), np.zeros(shares.size)
    parents = np.zeros((max_budget, shares.size), np.int32)
    savings = np.zeros(max_budget + 1)
    lines = np.empty(depths.size)
    for layer in range(max_budget):
        intercepts = previous[:-1] - gains * shares[:-1]
        for j in range(1, shares.size):
            heights = lines[:j]
            np.multiply(gains[:j], shares[j], out=heights)
            heights += intercepts[:j]
            best = heights.argmax()
            parents[layer, j] = best
            current[j] = heights[best]
        savings[layer + 1] = current[-1]
        previous, current = current, previous
    return savings


def median_ms(run: Callable[[], object], repeats: int) -> float:
    elapsed = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        elapsed.append(time.perf_counter() - started)
    return 1e3 * statistics.median(elapsed)


def time_planner(num_depths: int, max_budget: int, weights: str, repeats: int) -> Timing:
    depths, given = problem(num_depths, weights)
    plan_budgets(depths, given, max_budget=max_budget)
    planner_ms = median_ms(lambda: plan_budgets(depths, given, max_budget=max_budget), repeats)
    cell_ns = 1e6 * planner_ms / (num_depths * max_budget)
    return Timing(weights, num_depths, max_budget, repeats, planner_ms, cell_ns)


def time_priced(num_depths: int, weights: str, repeats: int) -> Timing:
    depths, given = problem(num_depths, weights)
    price = plan_budgets(depths, given, max_budget=1).saving(1) / 100.0
    plan_priced(depths, given, price_per_checkpoint=price)
    planner_ms = median_ms(lambda: plan_priced(depths, given, price_per_checkpoint=price), repeats)
    return Timing(weights, num_depths, 1, repeats, planner_ms, 1e6 * planner_ms / num_depths)


def compare(num_depths: int, max_budget: int, weights: str, repeats: int, numpy_repeats: int) -> Comparison:
    timing = time_planner(num_depths, max_budget, weights, repeats)
    depths, given = problem(num_depths, weights)
    planned = plan_budgets(depths, given, max_budget=max_budget).savings
    answers: list[FloatArray] = []

    def time_numpy(recurrence: Callable[[IntArray, FloatArray, int], FloatArray]) -> float:
        return median_ms(lambda: answers.append(recurrence(depths, given, max_budget)), numpy_repeats)

    plain_ms, tuned_ms = time_numpy(numpy_recurrence), time_numpy(tuned_numpy_recurrence)
    if not all(np.allclose(planned, answer, rtol=1e-9) for answer in answers):
        raise SystemExit(f"the planner and the recurrence disagree at {num_depths} depths")
    return Comparison(
        weights,
        num_depths,
        max_budget,
        timing.planner_ms,
        plain_ms,
        tuned_ms,
        plain_ms / timing.planner_ms,
        tuned_ms / timing.planner_ms,
    )


def measure(*, quick: bool) -> Report:
    repeats = 5 if quick else 31
    report = Report(
        machine=f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}"
    )
    for weights in ("irregular", "smooth"):
        report.headline.append(time_planner(HEADLINE_DEPTHS, HEADLINE_BUDGET, weights, repeats))
        report.comparisons.append(compare(4096, HEADLINE_BUDGET, weights, repeats, 1 if quick else 3))
        if not quick:
            report.comparisons.append(compare(HEADLINE_DEPTHS, HEADLINE_BUDGET, weights, repeats, 3))
        for num_depths in (4096, 16_384, 65_536, 262_144):
            fewer = max(3, repeats * 16_384 // max(16_384, num_depths))
            report.scaling_in_depths.append(time_planner(num_depths, HEADLINE_BUDGET, weights, fewer))
        for max_budget in (1, 8, 32, 128, 512):
            fewer = max(3, repeats * 32 // max(32, max_budget))
            report.scaling_in_budget.append(time_planner(HEADLINE_DEPTHS, max_budget, weights, fewer))
        for num_depths in (16_384, 262_144):
            report.priced.append(time_priced(num_depths, weights, repeats))
    return report


def rows(report: Report) -> list[Row]:
    """The claims that the report settles."""
    claims = [
        Row(
            name=f"planner, {each.num_depths:,} depths, all budgets to {each.max_budget}, {each.weights}",
            measured=f"{each.planner_ms:.2f} ms",
            target="<= 5 ms",
            reached=each.planner_ms <= 5.0,
            numbers={"planner_ms": each.planner_ms},
        )
        for each in report.headline
    ]
    claims += [
        Row(
            name=f"numpy O(M N^2) / planner, {pair.num_depths:,} depths, {pair.weights}",
            measured=f"{pair.ratio:,.0f}x as written, {pair.ratio_to_tuned:,.0f}x tuned",
            target=">= 1,000x",
            reached=pair.ratio >= 1000.0,
            numbers={"ratio": pair.ratio, "ratio_to_tuned": pair.ratio_to_tuned},
        )
        for pair in report.comparisons
        if pair.num_depths == HEADLINE_DEPTHS
    ]
    largest = max(report.scaling_in_depths, key=lambda each: each.num_depths)
    per_cell = [each.nanoseconds_per_cell for each in report.scaling_in_depths]
    claims.append(
        Row(
            name=f"planner, linear in depths up to {largest.num_depths:,}",
            measured=f"{min(per_cell):.1f} to {max(per_cell):.1f} ns a depth and budget",
            target="flat within 3x",
            reached=max(per_cell) <= 3 * min(per_cell),
            numbers={"largest_ms": largest.planner_ms},
        )
    )
    return claims


def show(report: Report) -> None:
    print(f"Exact planner ({report.machine}); medians after warm-up\n")
    for title, timings in (
        ("All budgets at once", report.headline),
        ("Scaling in the number of depths", report.scaling_in_depths),
        ("Scaling in the largest budget", report.scaling_in_budget),
        ("One price a checkpoint", report.priced),
    ):
        print(f"{title}\n  {'weights':10} {'depths':>8} {'budget':>7} {'ms':>10} {'ns/(N M)':>9}")
        for each in timings:
            size = f"{each.num_depths:8,} {each.max_budget:7}"
            print(f"  {each.weights:10} {size} {each.planner_ms:10.3f} {each.nanoseconds_per_cell:9.2f}")
        print()
    print("Against the recurrence in vectorised numpy, O(M N^2): as written, and tuned")
    print(f"  {'weights':10} {'depths':>8} {'budget':>7} {'planner ms':>11}", end="")
    print(f" {'numpy ms':>9} {'ratio':>6} {'tuned ms':>9} {'ratio':>6}")
    for pair in report.comparisons:
        print(f"  {pair.weights:10} {pair.num_depths:8,} {pair.max_budget:7} {pair.planner_ms:11.3f}", end="")
        print(
            f" {pair.numpy_ms:9.0f} {pair.ratio:5.0f}x {pair.tuned_numpy_ms:9.0f} {pair.ratio_to_tuned:5.0f}x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="few repeats, and numpy at 4,096 depths only")
    options = parser.parse_args()
    report = measure(quick=options.quick)
    if options.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
