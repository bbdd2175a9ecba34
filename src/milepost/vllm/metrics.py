"""The account of the checkpoints on vLLM's own ``/metrics``."""

from milepost.hosted.metrics import ACCOUNT_COUNTERS, Instruments, account_totals
from milepost.vllm.checkpoint_manager import CheckpointManager

__all__ = ["Metrics"]

_COUNTERS = {
    **ACCOUNT_COUNTERS,
    "milepost_checkpoints_planned": "Prompt positions where a prefill was to stop for a checkpoint.",
    "milepost_checkpoints_kept": "Checkpoints that were captured.",
    "milepost_checkpoints_hit": "Requests that resumed from a checkpoint.",
    "milepost_prefill_stops": "Prefill chunks that ended at a planned position.",
    "milepost_loaded_tokens": "Reused prompt tokens that a KV connector brought from another tier.",
}
# With how the values of several engine cores behind one server are told as one.
_GAUGES = {
    "milepost_checkpoints_held": ("livesum", "Checkpoints in the pool."),
    "milepost_smallest_reusable_prefix_tokens": ("livemax", "Shorter prefixes are never reused."),
    "milepost_evicted_block_worth_tokens": (
        "livemin",
        "What a block was worth that was evicted lately: tokens that it would have saved each later request.",
    ),
    "milepost_learned_rule_leads": ("livesum", "Engine cores in which the learned rule leads, not stock's."),
}


class Metrics:
    """Counters of one engine core. The core is a process of its own, so they show on ``/metrics`` where
    ``PROMETHEUS_MULTIPROC_DIR`` is set before the server starts.
    """

    def __init__(self, manager: CheckpointManager) -> None:
        self._manager = manager
        self._instruments = Instruments(_COUNTERS, _GAUGES)
        # Routers may ask before the first request.
        self._instruments.show({"milepost_smallest_reusable_prefix_tokens": manager.layout.grid_tokens})

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
                "milepost_checkpoints_kept": counts.kept,
                "milepost_checkpoints_hit": counts.hits,
                "milepost_prefill_stops": counts.stops,
                "milepost_loaded_tokens": counts.loaded,
            },
            {
                "milepost_checkpoints_held": account.num_checkpoints,
                "milepost_evicted_block_worth_tokens": manager.evicted_block_worth,
                "milepost_learned_rule_leads": manager.is_led_by_learning,
            },
        )
