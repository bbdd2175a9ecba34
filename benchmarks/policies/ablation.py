"""Placement against eviction: which of the two decides, of a cache of KV alone and of one with states.

    python -m benchmarks.policies.ablation --traces DIR [--full] [--figure FOLDER] [--output FILE] [--jobs N]

Every rule of placement is replayed with every rule of eviction, at every trace's own blocks and at multiples
of 512 and 1,024 tokens, at three budgets each; once with states of 1,536 tokens of KV, once without any. KV
alone has no placement: it is resumed from wherever it ends, so only eviction is left. The learned policy's
positions are what they are because of what would have to go for them, so there is no such placement under
another eviction.

Without ``--full``, the first 1,500 requests of each trace: some minutes of one core. At the same budgets
they fill memory less than the whole trace does. ``--figure`` draws what the page on it shows; ``--output``
keeps finished runs, and goes on from there.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.policies.granularity import COARSE, GridPoint, measure_on_grid
from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, missing_traces
from benchmarks.printing import Row, print_rows
from milepost.simulator import SweepProgress, available_cores

__all__ = ["KV_ALONE", "STATES", "Ablation", "Content", "measure_ablation", "rows"]

_SAMPLE = 1_500
_LEARNED = "learned"
_LEARNED_EVICTION = "/learned"


@dataclass(frozen=True, slots=True)
class Content:
    """What a cache holds.

    Attributes:
        title: In words.
        checkpoint_kv_tokens: What a state costs, in tokens of KV.
        placements: The rules of placement that any eviction can be combined with.
        by_recency: What evicts least recently used first, at the first of these positions.
        by_worth: The same positions, evicted as the learned policy does.
    """

    title: str
    checkpoint_kv_tokens: int
    placements: tuple[str, ...]
    by_recency: str
    by_worth: str

    @property
    def policies(self) -> tuple[str, ...]:
        """All that is replayed, by notation."""
        combined = (
            f"{placement}{eviction}" for placement in self.placements for eviction in ("", _LEARNED_EVICTION)
        )
        return tuple(dict.fromkeys((*combined, self.by_recency, self.by_worth, _LEARNED)))


STATES = Content(
    title="states and KV",
    checkpoint_kv_tokens=CHECKPOINT_KV_TOKENS,
    placements=("tail+junction", "balanced:8"),
    by_recency="tail+junction",
    by_worth="tail+junction/learned",
)
# Block by block, as engines evict KV. Whole prompts at once, by recency, reuse a little less.
KV_ALONE = Content(
    title="KV alone",
    checkpoint_kv_tokens=0,
    placements=(),
    by_recency="vllm",
    by_worth=_LEARNED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """One content, at all points."""

    content: Content
    points: Sequence[GridPoint]

    def from_eviction(self, point: GridPoint) -> float:
        """What learned eviction adds to the least recently used, at the same positions."""
        return point.reused[self.content.by_worth] - point.reused[self.content.by_recency]

    def from_placement(self, point: GridPoint) -> float:
        """What learned positions add to that."""
        return point.reused[_LEARNED] - point.reused[self.content.by_worth]


def measure_ablation(
    folder: Path,
    *,
    max_requests: int | None = _SAMPLE,
    jobs: int | None = None,
    output: Path | None = None,
    watch: Callable[[SweepProgress], None] | None = None,
) -> tuple[Ablation, Ablation]:
    """Return what holds of KV alone and of states, on all traces and grids."""

    def measured(content: Content) -> Ablation:
        points = [
            point
            for grid in (None, *COARSE)
            for point in measure_on_grid(
                folder,
                grid,
                policies=content.policies,
                jobs=jobs or available_cores(),
                checkpoint_kv_tokens=content.checkpoint_kv_tokens,
                max_requests=max_requests,
                output=output,
                watch=watch,
            )
        ]
        return Ablation(content=content, points=points)

    return measured(KV_ALONE), measured(STATES)


def rows(kv_alone: Ablation, states: Ablation) -> list[Row]:
    """Return one row a content and granularity, and one for the claim."""
    found = [row for ablation in (kv_alone, states) for row in _rows(ablation)]
    lost_of_kv = max(fmean(map(kv_alone.from_eviction, at)) for _, at in _by_granularity(kv_alone.points))
    own = [point for point in states.points if point.is_own]
    lost_of_states = fmean(states.from_eviction(point) + states.from_placement(point) for point in own)
    return [
        *found,
        Row(
            name="ablation, for KV, LRU is nearly enough; for states it is not",
            measured=f"LRU loses {lost_of_kv:+.4f} of KV alone, at most, and {lost_of_states:+.4f} of states "
            "at the traces' own blocks, means",
            target="of KV < 0.01, of states > 0.05",
            reached=lost_of_kv < 0.01 and lost_of_states > 0.05,
            numbers={"lost_of_kv": lost_of_kv, "lost_of_states": lost_of_states},
        ),
    ]


def _rows(ablation: Ablation) -> Iterator[Row]:
    for name, at in _by_granularity(ablation.points):
        eviction = [ablation.from_eviction(point) for point in at]
        placement = [ablation.from_placement(point) for point in at]
        added = f"learned eviction {fmean(eviction):+.4f} ({min(eviction):+.3f} to {max(eviction):+.3f})"
        if ablation.content.placements:
            added += (
                f", then learned positions {fmean(placement):+.4f} "
                f"({min(placement):+.3f} to {max(placement):+.3f})"
            )
        yield Row(
            name=f"ablation, {ablation.content.title} {name}",
            measured=f"{added}, {len(at)} points",
            target="at no point below -0.02",
            reached=min(*eviction, *placement) >= -0.02,
            numbers={"from_eviction": fmean(eviction), "from_placement": fmean(placement)},
        )


def _by_granularity(points: Sequence[GridPoint]) -> Iterator[tuple[str, list[GridPoint]]]:
    yield "at the traces' own blocks", [point for point in points if point.is_own]
    for grid in COARSE:
        yield f"every {grid:,}", [point for point in points if point.grid == grid]


def _print(ablation: Ablation) -> None:
    """Print what each rule reuses at each point, one row a trace and grid."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in (ablation.content.title, "every", "tokens"):
        table.add_column(heading)
    for heading in (*ablation.content.policies, "ceiling"):
        table.add_column(heading, justify="right")
    order = sorted(ablation.points, key=lambda point: (_first_of(ablation, point.trace), point.grid))
    for (trace, grid), group in groupby(order, key=lambda point: (point.trace, point.grid)):
        at = list(group)
        table.add_row(
            trace,
            f"{grid:,}",
            ", ".join(f"{point.capacity_kv_tokens // 1_000:,}k" for point in at),
            *(
                ", ".join(f"{point.reused[policy]:.3f}" for point in at)
                for policy in ablation.content.policies
            ),
            f"{at[0].ceiling_fraction:.3f}",
        )
    Console().print(table)


def _first_of(ablation: Ablation, trace: str) -> int:
    return next(index for index, point in enumerate(ablation.points) if point.trace == trace)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.policies.ablation", description="Placement against eviction."
    )
    parser.add_argument("--traces", type=Path, required=True, metavar="DIR", help="folder of the traces")
    parser.add_argument("--full", action="store_true", help=f"whole traces, not their first {_SAMPLE:,}")
    parser.add_argument("--figure", type=Path, metavar="FOLDER", help="draw the figure of the page there")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes at once; one for each core")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep finished runs there and go on")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    arguments = parser.parse_args()
    if reason := missing_traces(arguments.traces):
        sys.exit(f"ablation: skipped, {reason}")
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("")

        def watch(state: SweepProgress) -> None:
            progress.update(task, description=state.stage, completed=state.done, total=state.total)

        found = measure_ablation(
            arguments.traces,
            max_requests=None if arguments.full else _SAMPLE,
            jobs=arguments.jobs,
            output=arguments.output,
            watch=watch,
        )
    if arguments.figure is not None:
        from benchmarks.policies.ablation_figure import draw_ablation

        print(draw_ablation(*found, folder=arguments.figure), file=sys.stderr)
    if not arguments.json:
        for ablation in found:
            _print(ablation)
    print_rows(rows(*found), as_json=arguments.json)


if __name__ == "__main__":
    main()
