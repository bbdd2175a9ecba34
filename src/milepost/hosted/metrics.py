"""The account of a cache on the ``/metrics`` of the engine that hosts it, by names that are the same in all
engines, so that one dashboard shows them all.
"""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, final

from prometheus_client import REGISTRY, Counter, Gauge

from milepost.accounting import CacheStatistics

__all__ = ["ACCOUNT_COUNTERS", "Instruments", "account_totals"]

#: By name, what is counted in every engine; see :func:`account_totals`.
ACCOUNT_COUNTERS = {
    "milepost_requests": "Requests that were planned for.",
    "milepost_checkpoints_evicted": "Checkpoints that made room for others.",
    "milepost_prompt_tokens": "Prompt tokens of the requests that were planned for.",
    "milepost_reused_tokens": "Prompt tokens that were not computed again.",
    "milepost_unseen_tokens": "Prompt tokens that no earlier prompt had.",
    "milepost_lost_to_placement_tokens": "Shared prompt tokens computed again: no checkpoint was put there.",
    "milepost_lost_to_eviction_tokens": "Shared prompt tokens computed again: the checkpoint was evicted.",
    "milepost_lost_to_reset_tokens": "Shared prompt tokens computed again: the prefix cache was reset.",
    "milepost_lost_to_block_floor_tokens": "Shared prompt tokens computed again: they lie after the last "
    "position where a checkpoint can be.",
}


def account_totals(account: CacheStatistics) -> dict[str, int]:
    """Return what the counters of every engine stand at.

    >>> from milepost.prefix_cache import PrefixCache
    >>> from milepost.footprint import Footprint
    >>> footprint = Footprint(checkpoint_bytes=1, kv_bytes_per_token=0)
    >>> cache = PrefixCache(capacity_bytes=8, footprint=footprint, policy="balanced:4")
    >>> account_totals(cache.statistics())["milepost_requests"]
    0
    """
    return {
        "milepost_requests": account.num_requests,
        "milepost_checkpoints_evicted": account.num_evictions,
        "milepost_prompt_tokens": account.num_tokens,
        "milepost_reused_tokens": account.reused,
        "milepost_unseen_tokens": account.unseen,
        "milepost_lost_to_placement_tokens": account.placement,
        "milepost_lost_to_eviction_tokens": account.eviction,
        "milepost_lost_to_reset_tokens": account.reset,
        "milepost_lost_to_block_floor_tokens": account.alignment,
    }


@final
class Instruments:
    """Counters and gauges of one process. Where the engine's server is another one, they show on its
    ``/metrics`` by way of ``PROMETHEUS_MULTIPROC_DIR``, which has to be set before this module is imported.

    Args:
        counters: What each counts, by name.
        gauges: How the values of several processes are told as one, and what each shows, by name.
    """

    def __init__(self, counters: Mapping[str, str], gauges: Mapping[str, tuple[str, str]]) -> None:
        self._counters = {name: _metric(Counter, name, text) for name, text in counters.items()}
        self._gauges = {
            name: _metric(Gauge, name, text, multiprocess_mode=mode) for name, (mode, text) in gauges.items()
        }
        self._seen = dict.fromkeys(counters, 0)
        self._told: Any = None

    def update(self, counts: Any, tell: Callable[[], tuple[Mapping[str, int], Mapping[str, float]]]) -> None:
        """Count and show what ``tell`` returns, if anything has changed since the last time. Next to free
        where nothing has.

        Args:
            counts: What became of the checkpoints by now, a dataclass.
            tell: Returns what the counters stand at, and what the gauges show.
        """
        if counts == self._told:
            return
        self._told = copy(counts)
        totals, values = tell()
        self.count(totals)
        self.show(values)

    def count(self, totals: Mapping[str, int]) -> None:
        """Add to the counters what has come since the last time."""
        for name, total in totals.items():
            if total > self._seen[name]:
                self._counters[name].inc(total - self._seen[name])
                self._seen[name] = total

    def show(self, values: Mapping[str, float]) -> None:
        """Set gauges."""
        for name, value in values.items():
            self._gauges[name].set(value)


def _metric(kind: Any, name: str, text: str, **options: Any) -> Any:
    """Return a metric of this process; the one that is there already where an engine was made before."""
    existing = getattr(REGISTRY, "_names_to_collectors", {}).get(name)
    return existing if existing is not None else kind(name, text, **options)
