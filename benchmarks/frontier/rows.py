"""What the runs say about what was wanted."""

from collections.abc import Mapping, Sequence

from benchmarks.frontier.measuring import OFF, OURS, FrontierRun
from benchmarks.printing import Row
from benchmarks.ratios import ratio_row

__all__ = ["rows_of"]

_WANTED = {"quality": 1 / 1.5, "system_prompts": 1 / 4.2, "unique": 1.01}


def rows_of(runs: Mapping[str, Sequence[FrontierRun]]) -> list[Row]:
    """Return a row for each claim of each workload."""
    rows = []
    for name, found in runs.items():
        ours = [run for run in found if run.policy == OURS]
        best = min(ours, key=lambda run: run.total_seconds)
        wanted = _WANTED.get(name)
        rows.append(_ratio_row(f"{name}: {OURS} with capture / no cache", best, found[0], wanted))
        for run in ours if name != "unique" else ():
            others = [
                each
                for each in found
                if each.capacity_bytes == run.capacity_bytes and each.policy not in (OURS, OFF)
            ]
            rival = min(others, key=lambda each: each.total_seconds)
            share = f"{run.capacity_bytes / 1e6:,.0f} MB"
            rows.append(_ratio_row(f"{name}, {share}: {OURS} / best other ({rival.policy})", run, rival, 1.0))
        different = sum(run.num_different for run in found)
        rows.append(
            Row(
                name=f"{name}: requests with other logits than without a cache",
                measured=f"{different:,} of the requests of {len(found)} runs",
                target="0",
                reached=different == 0,
                numbers={"different": different},
            )
        )
    return rows


def _ratio_row(name: str, run: FrontierRun, base: FrontierRun, wanted: float | None) -> Row:
    numbers = {"saved": run.saved_fraction, "capture_seconds": run.capture_seconds}
    return ratio_row(name, run.totals, base.totals, target=wanted, numbers=numbers)
