"""With how many checkpoints the learned policy saves what the paper's planner does.

The cache has one budget and no number of checkpoints, so it is replayed over a range of budgets, on the
tokens as logged and after a log of the same shape, as the paper's runs were. Of the runs that save at least
what a run of the planner did, the one that stores fewest for a request counts; the planner's number is that
of the paper's table, for an entry, which is what one request stores there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.paper.learned import CacheResult, fifo_bytes, read_before, replay_cache
from benchmarks.paper.rebuild import LoggedRequest, rebuild
from benchmarks.printing import Row

__all__ = ["fewer_rows"]

# As many states an entry, beside the KV of all entries, as the budgets have room for.
_STATES_PER_ENTRY = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
_WANTED = 0.25


def fewer_rows(
    title: str,
    log: Sequence[LoggedRequest],
    published: Mapping[str, Mapping[str, Any]],
    strategies: Sequence[str],
    *,
    num_cached: int,
) -> list[Row]:
    """Return one row for each run of the planner."""
    rebuilt = rebuild(log, num_cached=num_cached, by_document=False)
    before = read_before(rebuilt)
    runs = [
        replay_cache(
            rebuilt,
            "learned",
            num_cached=num_cached,
            capacity_bytes=fifo_bytes(rebuilt, num_cached=num_cached, checkpoints_per_entry=states),
            before=before,
        )
        for states in _STATES_PER_ENTRY
    ]
    return [_row(title, runs, strategy, published[strategy]) for strategy in strategies]


def _row(title: str, runs: Sequence[CacheResult], strategy: str, published: Mapping[str, Any]) -> Row:
    saved, wanted = float(published["saved_fraction"]), float(published["mean_checkpoints_per_entry"])
    enough = [run for run in runs if run.saved_fraction >= saved]
    name = f"{title}: learned, checkpoints for what {strategy} saves"
    target = f"<= {_WANTED:g} of {wanted:.2f}"
    if not enough:
        most = max(run.saved_fraction for run in runs)
        return Row(
            name=name, measured=f"saves {most:.4f} at most, not {saved:.4f}", target=target, reached=False
        )
    fewest = min(enough, key=lambda run: run.checkpoints_per_request)
    ratio = fewest.checkpoints_per_request / wanted
    return Row(
        name=name,
        measured=f"{ratio:.2f} ({fewest.checkpoints_per_request:.2f} of {wanted:.2f}, saving "
        f"{fewest.saved_fraction:.4f} against {saved:.4f})",
        target=target,
        reached=ratio <= _WANTED,
        numbers={
            "ratio": ratio,
            "checkpoints_per_request": fewest.checkpoints_per_request,
            "published_checkpoints_per_entry": wanted,
            "saved_fraction": fewest.saved_fraction,
            "published_saved_fraction": saved,
        },
    )
