"""Counts what the plugin promises inside answers, and what of it vLLM stores."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["PromiseWatch"]


@dataclass(slots=True, eq=False)
class PromiseWatch:
    """States that a planning ``scheduler`` has promised inside answers since, and how many of them could be
    found as soon as vLLM had given their blocks a hash; methods are wrapped on the one instance.
    """

    scheduler: Any
    num_promised: int = 0
    num_stored: int = 0
    _pending: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        manager, coordinator = self.scheduler.checkpoint_manager, self.scheduler.kv_cache_manager.coordinator
        promise, cache_blocks = manager._answers._promise, coordinator.cache_blocks

        def watched_promise(request: Any, prompt: Any, boundary: int) -> None:
            num_answers = manager.counts.answers
            promise(request, prompt, boundary)
            if manager.counts.answers > num_answers:
                # By the hash that a prompt would be looked up by, whatever the plugin made of it.
                self._pending.append(prompt.hashes[boundary // manager.layout.match_tokens - 1])

        def watched_cache_blocks(*args: Any, **kwargs: Any) -> None:
            cache_blocks(*args, **kwargs)
            for prefix_hash in self._pending:
                self.num_promised += 1
                self.num_stored += self._is_stored(prefix_hash)
            self._pending.clear()

        manager._answers._promise = watched_promise
        coordinator.cache_blocks = watched_cache_blocks

    def _is_stored(self, prefix_hash: bytes) -> bool:
        pool = self.scheduler.kv_cache_manager.block_pool
        groups = range(len(self.scheduler.kv_cache_config.kv_cache_groups))
        return pool.get_cached_block(prefix_hash, list(groups)) is not None
