"""Exact and lossy states in the same budgets on recorded traffic, by replay: prices alone, no model."""

from pathlib import Path

from benchmarks.lossy.foresight import foresight_row
from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES, BenchmarkTrace
from benchmarks.printing import Row
from milepost.simulator import Setting, SimulationResult, nominal_footprint
from milepost.simulator.simulation import simulate_all
from milepost.traces import open_trace

__all__ = ["PRICES", "recorded_rows"]

_POLICY = "learned"
_LEAST_RATIO = 0.9
# A gated-delta layer of Qwen3.5-0.8B: 16 heads of 128 rows of 128 numbers in float32, and four tokens of
# 6,144 channels before the convolution in bfloat16, which stay as they are.
_ROWS, _ROW, _CONVOLUTION_BYTES = 16 * 128, 128, 4 * 6_144 * 2
_SCALE_BYTES = 4


def _price(bits: int) -> float:
    """Return what a state with rows of ``bits`` bits costs where the exact one costs what it does."""
    exact = _ROWS * _ROW * 4 + _CONVOLUTION_BYTES
    quantised = _ROWS * (_ROW * bits / 8 + _SCALE_BYTES) + _CONVOLUTION_BYTES
    return CHECKPOINT_KV_TOKENS * quantised / exact


PRICES = {"exact": float(CHECKPOINT_KV_TOKENS), "int8": _price(8), "6 bit": _price(6), "replay": 0.0}
"""What a state costs in tokens of KV, by what is kept of it."""


def recorded_rows(folder: Path) -> list[Row]:
    """Return a row for each trace, budget and rival; and where int8 is ahead by more than it may be, one for
    the known future. Minutes.
    """
    return [
        row for trace in TRACES for capacity in trace.capacities for row in _rows(trace, folder, capacity)
    ]


def _rows(trace: BenchmarkTrace, folder: Path, capacity: int) -> list[Row]:
    settings = [
        Setting(policy=_POLICY, capacity_kv_tokens=capacity, footprint=nominal_footprint(price))
        for price in PRICES.values()
    ]
    results = dict(zip(PRICES, simulate_all(open_trace(trace.path_in(folder)), settings), strict=True))
    exact = results.pop("exact")
    names = {name: f"{trace.title}, {capacity // 1_000:,}k tokens of KV, exact / {name}" for name in results}
    # What a replay reuses it has to run again in part, so it is judged by time: by what it may run again.
    rows = {name: _row(names[name], exact, its, is_judged=name != "replay") for name, its in results.items()}
    if rows["int8"].reached:
        return [*rows.values()]
    foreseen = foresight_row(
        names["int8"],
        open_trace(trace.path_in(folder)),
        capacity_kv_tokens=capacity,
        exact=nominal_footprint(PRICES["exact"]),
        lossy=nominal_footprint(PRICES["int8"]),
    )
    return [*rows.values(), foreseen]


def _row(name: str, exact: SimulationResult, its: SimulationResult, *, is_judged: bool) -> Row:
    ratio = exact.reused_tokens / max(1, its.reused_tokens)
    spare = (its.reused_tokens - exact.reused_tokens) / exact.num_requests
    return Row(
        name=name,
        measured=f"{ratio:.3f} ({exact.reused_fraction:.3f} / {its.reused_fraction:.3f})"
        + ("" if is_judged else f"; to replay in equal work {max(0.0, spare):,.0f} tokens a request"),
        target=f">= {_LEAST_RATIO}" if is_judged else "reported",
        reached=not is_judged or ratio >= _LEAST_RATIO,
        numbers={
            "ratio": ratio,
            "exact_reused_share": exact.reused_fraction,
            "reused_share": its.reused_fraction,
            "spare_tokens_a_request": spare,
            "checkpoint_kv_tokens": its.checkpoint_kv_tokens,
        },
    )
