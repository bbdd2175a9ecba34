"""The account of the checkpoints on SGLang's own ``/metrics``."""

from milepost.hosted.metrics import ACCOUNT_COUNTERS, Instruments, account_totals
from milepost.sglang.checkpoint_manager import CheckpointManager

__all__ = ["Metrics"]

_COUNTERS = {
    **ACCOUNT_COUNTERS,
    "milepost_checkpoints_planned": "Prompt positions where a state was to be captured.",
    "milepost_stops": "Those of them for which a prompt was to be cut into one more chunk.",
    "milepost_checkpoints_kept": "States that came into the radix tree because of it.",
    "milepost_checkpoints_hit": "Requests that resumed from a state.",
    "milepost_answer_checkpoints": "States kept inside answers.",
    "milepost_off_grid_positions": "Planned positions that no chunk could capture.",
    "milepost_checkpoints_taken": "States that went with their KV, or that SGLang evicted by itself.",
}
# With how the values of several schedulers behind one server are told as one.
_GAUGES = {
    "milepost_checkpoints_held": ("livesum", "States in the radix tree that are wanted."),
    "milepost_smallest_reusable_prefix_tokens": ("livemax", "Shorter prefixes are never reused."),
}


class Metrics:
    """Counters of one scheduler. They show on ``/metrics`` of a server with ``--enable-metrics``."""

    def __init__(self, manager: CheckpointManager) -> None:
        self._manager = manager
        self._instruments = Instruments(_COUNTERS, _GAUGES)
        # Routers may ask before the first request.
        self._instruments.show({"milepost_smallest_reusable_prefix_tokens": manager.room.grid_tokens})

    def update(self) -> None:
        """Add what has changed since the last time. Next to free where nothing has."""
        self._instruments.update(self._manager.counts, self._account)

    def _account(self) -> tuple[dict[str, int], dict[str, float]]:
        manager, counts = self._manager, self._manager.counts
        account = manager.statistics()
        return (
            account_totals(account)
            | {
                "milepost_checkpoints_planned": counts.planned,
                "milepost_stops": counts.stops,
                "milepost_checkpoints_kept": counts.kept,
                "milepost_checkpoints_hit": counts.hits,
                "milepost_answer_checkpoints": counts.answers,
                "milepost_off_grid_positions": counts.off_grid,
                "milepost_checkpoints_taken": counts.evicted_by_sglang,
            },
            {"milepost_checkpoints_held": account.num_checkpoints},
        )
