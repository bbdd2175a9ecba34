"""The account of the checkpoints on vLLM's own ``/metrics``."""

from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge

from milepost.vllm.checkpoint_manager import CheckpointManager

__all__ = ["Metrics"]

_COUNTERS = {
    "milepost_requests": "Requests that were planned for.",
    "milepost_checkpoints_planned": "Prompt positions where a prefill was to stop for a checkpoint.",
    "milepost_checkpoints_kept": "Checkpoints that were captured.",
    "milepost_checkpoints_hit": "Requests that resumed from a checkpoint.",
    "milepost_checkpoints_evicted": "Checkpoints that made room for others.",
    "milepost_prefill_stops": "Prefill chunks that ended at a planned position.",
    "milepost_prompt_tokens": "Prompt tokens of the requests that were planned for.",
    "milepost_reused_tokens": "Prompt tokens that were not computed again.",
    "milepost_loaded_tokens": "Reused prompt tokens that a KV connector brought from another tier.",
    "milepost_unseen_tokens": "Prompt tokens that no earlier prompt had.",
    "milepost_lost_to_placement_tokens": "Shared prompt tokens computed again: no checkpoint was put there.",
    "milepost_lost_to_eviction_tokens": "Shared prompt tokens computed again: the checkpoint was evicted.",
    "milepost_lost_to_reset_tokens": "Shared prompt tokens computed again: the prefix cache was reset.",
    "milepost_lost_to_block_floor_tokens": "Shared prompt tokens computed again: they lie after the last "
    "block boundary.",
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
        self._counters = {name: _metric(Counter, name, text) for name, text in _COUNTERS.items()}
        self._gauges = {
            name: _metric(Gauge, name, text, multiprocess_mode=mode) for name, (mode, text) in _GAUGES.items()
        }
        # Routers may ask before the first request.
        self._gauges["milepost_smallest_reusable_prefix_tokens"].set(manager.layout.grid_tokens)
        self._seen = dict.fromkeys(_COUNTERS, 0)
        self._num_updated = -1

    def update(self) -> None:
        """Add what has changed since the last time. Next to free where nothing has."""
        counts = self._manager.counts
        if counts.confirmed == self._num_updated:
            return
        self._num_updated = counts.confirmed
        account = self._manager.statistics()
        now = {
            "milepost_requests": account.num_requests,
            "milepost_checkpoints_planned": counts.planned,
            "milepost_checkpoints_kept": counts.kept,
            "milepost_checkpoints_hit": counts.hits,
            "milepost_checkpoints_evicted": account.num_evictions,
            "milepost_prefill_stops": counts.stops,
            "milepost_prompt_tokens": account.num_tokens,
            "milepost_reused_tokens": account.reused,
            "milepost_loaded_tokens": counts.loaded,
            "milepost_unseen_tokens": account.unseen,
            "milepost_lost_to_placement_tokens": account.placement,
            "milepost_lost_to_eviction_tokens": account.eviction,
            "milepost_lost_to_reset_tokens": account.reset,
            "milepost_lost_to_block_floor_tokens": account.alignment,
        }
        for name, value in now.items():
            if value > self._seen[name]:
                self._counters[name].inc(value - self._seen[name])
                self._seen[name] = value
        gauges = self._gauges
        gauges["milepost_checkpoints_held"].set(account.num_checkpoints)
        gauges["milepost_evicted_block_worth_tokens"].set(self._manager.evicted_block_worth)
        gauges["milepost_learned_rule_leads"].set(self._manager.is_led_by_learning)


def _metric(kind: Any, name: str, text: str, **options: Any) -> Any:
    """Return a metric of this process; the one that is there already where an engine was made before."""
    existing = getattr(REGISTRY, "_names_to_collectors", {}).get(name)
    return existing if existing is not None else kind(name, text, **options)
