"""The paper's own runs, replayed: its table beside what our placements save on the same requests.

    python -m benchmarks.paper --logs DIR [--json]

``DIR`` holds, for ``quality_clean`` and ``system_prompts_clean``, ``*_requests.jsonl`` (what was asked) and
``*_table.json`` (what each strategy saved, with how many checkpoints an entry), both taken from the logs of
arabel1a/sparse-prefix-caching, commit e5cdcde; where it holds ``*_histograms.json`` as well
(``e2e_dp_1_histograms.json`` of that repository), the planner starts from what the logged runs had learned.

What can be had back, and what not
    ``dense``, ``balanced``, ``dyadic`` and ``sqrt`` learn nothing, so the log determines them. The
    planner's runs depend on 600 requests that are not in the log, through the histogram of overlap depths
    that they left behind: it counts for the first hundred requests or so (it fades by 0.99 a request), a
    quarter of the log. Without that histogram, the log's own depths stand in for the missing ones. Then
    runs of few checkpoints may come out differently, since the best single position jumps when a few
    weights change. With it, every run has the logged number of checkpoints and saves the logged tokens to
    0.0025. (``dp_300`` has three fewer: those of the logged run that no overlap uses.) Saved tokens still
    differ by that much because the warm-up's own entries, balanced, are of unknown length. (*As run* is
    the paper's way to plan, the other ours, which always starts from the log's own depths: see
    :mod:`benchmarks.paper.published`.)

    The learned policy runs in the cache that serves prompts, on the bytes that the logged cache takes for N
    mean sequences with as many checkpoints as the target allows. As there, a checkpoint is counted for the
    request that stored it; what the cache holds at a time for each of N entries is printed beside, and may
    be more, since entries that share their KV leave room for further checkpoints. Its requests are rebuilt
    in two ways (see :mod:`benchmarks.paper.rebuild`): *by document*, as the prompts were, and *as logged*,
    where nothing that the logged FIFO had dropped can ever be asked for again, though the policy cannot
    know. It starts from nothing, or (*log read before*) has seen requests of the same shape and other
    tokens, as the logged runs had seen 600.

    ``dp_25`` on QuALITY is a run with 20 checkpoints, as its configuration says.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.fewer import fewer_rows
from benchmarks.paper.fifo import GRID, FifoResult, replay_fifo
from benchmarks.paper.learned import fifo_bytes, read_before, replay_cache
from benchmarks.paper.published import PublishedDP, read_histogram
from benchmarks.paper.rebuild import LoggedRequest, RebuiltLog, read_log, rebuild
from benchmarks.printing import Row
from milepost.placement import (
    Balanced,
    Dense,
    HistogramDP,
    PlacementPolicy,
    PlacementRequest,
)
from milepost.policies import parse_policy

__all__ = ["measure", "missing_logs"]

_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class _Workload:
    """One table of the paper, and what the learned policy has to reach on it."""

    title: str
    files: str
    num_cached: int
    most_checkpoints: float
    least_saved: float
    dense: tuple[int, ...]
    balanced: tuple[int, ...]
    # Strategy of the table and our notation.
    spaced: tuple[tuple[str, str], ...]
    # Strategy of the table and checkpoints of the run, where its name does not say.
    planned: tuple[tuple[str, int], ...]


_WORKLOADS = (
    _Workload(
        title="QuALITY",
        files="quality_clean",
        num_cached=20,
        most_checkpoints=1.5,
        least_saved=0.38,
        dense=(64, 256, 512, 1024, 2048, 4096),
        balanced=(1, 3, 5, 12, 30),
        spaced=(("log", "dyadic:768"), ("sqrt", "sqrt")),
        planned=(
            ("dp_1", 1),
            ("dp_2", 2),
            ("dp_3", 3),
            ("dp_5", 5),
            ("dp_12", 12),
            ("dp_25", 20),
            ("dp_30", 30),
        ),
    ),
    _Workload(
        title="System Prompts",
        files="system_prompts_clean",
        num_cached=50,
        most_checkpoints=3.0,
        least_saved=0.77,
        dense=(256, 512, 1024, 2048, 4096),
        balanced=(1, 3, 5, 8, 16),
        spaced=(("log", "dyadic:768"),),
        planned=(
            ("dp_1", 1),
            ("dp_2", 2),
            ("dp_3", 3),
            ("dp_5", 5),
            ("dp_12", 12),
            ("dp_20", 20),
            ("dp_30", 30),
        ),
    ),
)


def missing_logs(logs: Path) -> list[str]:
    """Return the files that ``logs`` lacks."""
    needed = [f"{each.files}_{kind}" for each in _WORKLOADS for kind in ("requests.jsonl", "table.json")]
    return [name for name in needed if not (logs / name).is_file()]


def measure(logs: Path) -> list[Row]:
    """Replay both workloads from the files in ``logs``. Takes about twenty seconds on one core."""
    return [row for workload in _WORKLOADS for row in _rows(workload, logs)]


def _rows(workload: _Workload, logs: Path) -> Iterator[Row]:
    log = read_log(logs / f"{workload.files}_requests.jsonl")
    table = json.loads((logs / f"{workload.files}_table.json").read_text(encoding="utf-8"))
    published = {row["strategy"]: row for row in table["rows"]}
    rebuilt = rebuild(log, num_cached=workload.num_cached)
    histogram_path = logs / f"{workload.files}_histograms.json"
    histogram = read_histogram(histogram_path) if histogram_path.is_file() else None
    fixed: list[tuple[str, str, PlacementPolicy]] = [
        *((f"block_{every}", f"dense:{every}", Dense(every=every)) for every in workload.dense),
        *((f"balanced_{count}", f"balanced:{count}", Balanced(count=count)) for count in workload.balanced),
        *((strategy, notation, parse_policy(notation).placement) for strategy, notation in workload.spaced),
    ]
    for strategy, notation, policy in fixed:
        result = replay_fifo(rebuilt, policy, num_cached=workload.num_cached)
        yield _beside(workload, notation, result, published[strategy])
    for strategy, count in workload.planned:
        yield from _planned(workload, count, published[strategy], log, rebuilt, histogram)
    yield from _learned(workload, log)
    yield from fewer_rows(
        workload.title,
        log,
        published,
        [strategy for strategy, _ in workload.planned],
        num_cached=workload.num_cached,
    )


def _planned(
    workload: _Workload,
    count: int,
    published: dict[str, Any],
    log: Sequence[LoggedRequest],
    rebuilt: RebuiltLog,
    histogram: Sequence[tuple[int, float]] | None,
) -> Iterator[Row]:
    """Yield the paper's planner as it was run, and ours."""
    as_run = PublishedDP(count, histogram or ())
    ours = HistogramDP(count=count, smoothing=0.0)
    if histogram is None:
        _learn(as_run, log)
        as_run.replan()
    _learn(ours, log)
    for notation, policy in ((f"histogram-dp:{count} as run", as_run), (f"histogram-dp:{count}", ours)):
        result = replay_fifo(
            rebuilt, policy, num_cached=workload.num_cached, warmup_policy=Balanced(count=count)
        )
        yield _beside(workload, notation, result, published, better_counts=policy is ours)


def _learned(workload: _Workload, log: Sequence[LoggedRequest]) -> Iterator[Row]:
    """Yield what the learned policy saves in the bytes that the paper's cache takes with as few checkpoints
    as are asked for. An entry is what one request stores.
    """
    for by_document in (True, False):
        rebuilt = rebuild(log, num_cached=workload.num_cached, by_document=by_document)
        capacity = fifo_bytes(
            rebuilt, num_cached=workload.num_cached, checkpoints_per_entry=workload.most_checkpoints
        )
        for before in ((), read_before(rebuilt)):
            result = replay_cache(
                rebuilt, "learned", num_cached=workload.num_cached, capacity_bytes=capacity, before=before
            )
            yield Row(
                name=f"{workload.title}: learned, tokens {'by document' if by_document else 'as logged'}"
                + (", log read before" if before else ""),
                measured=f"{result.saved_fraction:.4f} with {result.checkpoints_per_request:.2f} stored a "
                f"request, {result.checkpoints_per_entry:.2f} held an entry",
                target=f">= {workload.least_saved} with <= {workload.most_checkpoints:g}",
                reached=result.saved_fraction >= workload.least_saved
                and result.checkpoints_per_request <= workload.most_checkpoints,
                numbers=asdict(result) | {"capacity_bytes": capacity},
            )


def _beside(
    workload: _Workload,
    notation: str,
    result: FifoResult,
    published: dict[str, Any],
    *,
    better_counts: bool = False,
) -> Row:
    saved, checkpoints = published["saved_fraction"], published["mean_checkpoints_per_entry"]
    difference = result.saved_fraction - saved
    close = difference >= -_TOLERANCE if better_counts else abs(difference) <= _TOLERANCE
    return Row(
        name=f"{workload.title}: {notation}",
        measured=f"{result.saved_fraction:.4f} with {result.checkpoints_per_entry:.2f}",
        target=f"{saved:.4f} with {checkpoints:.2f} ({published['strategy']}; to 0.01"
        + (" or better)" if better_counts else ")"),
        reached=close,
        numbers={
            "saved_fraction": result.saved_fraction,
            "checkpoints_per_entry": result.checkpoints_per_entry,
            "published_saved_fraction": saved,
            "published_checkpoints_per_entry": checkpoints,
        },
    )


def _learn(policy: PlacementPolicy, log: Sequence[LoggedRequest]) -> None:
    for each in log:
        policy.observe(
            PlacementRequest(num_tokens=each.num_tokens, overlap_depth=each.overlap_depth, grid=GRID)
        )
