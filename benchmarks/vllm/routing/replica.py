"""One replica as a router sees it: vLLM's scheduler without a model, and the indices of its events."""

from collections.abc import Sequence
from typing import Any, final

from benchmarks.vllm.routing.attention_index import AttentionIndex
from benchmarks.vllm.routing.resumable_index import ResumableIndex
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.serving import Progress
from benchmarks.vllm.traffic.asks import TokenArray

__all__ = ["Replica", "publish_events"]


def publish_events(vllm_config: Any) -> None:
    """Have schedulers of this configuration collect KV events; who reads them sets the publisher."""
    from vllm.config import KVEventsConfig

    vllm_config.kv_events_config = KVEventsConfig(enable_kv_cache_events=True, publisher="null")


@final
class Replica:
    """A ``Server``; see the module.

    Args:
        server: Its scheduler, of a configuration that :func:`publish_events` has changed.
        block_tokens: Tokens of a block.
        match_unit: Tokens of a block hash.
    """

    def __init__(self, server: BareServer, *, block_tokens: int, match_unit: int) -> None:
        self.scheduler = server.scheduler
        #: What routers keep, and what they could keep of the same events.
        self.index = AttentionIndex(block_tokens=block_tokens)
        self.resumable_index = ResumableIndex(block_tokens=block_tokens, match_unit=match_unit)
        #: By request: how much of it each index promised when it came.
        self.promised_tokens: dict[int, int] = {}
        self.resumable_tokens: dict[int, int] = {}
        #: And what the latter promised beyond what was found, where it was evicted before that.
        self.gone_tokens: dict[int, int] = {}
        self._waiting: dict[int, tuple[Sequence[Any], int]] = {}
        self._server = server
        self._units_per_block = block_tokens // match_unit
        subscriber = _Subscriber(self.index, self.resumable_index)
        publisher = self.scheduler.kv_event_publisher
        if hasattr(publisher, "inner"):
            publisher.inner = subscriber
        else:
            self.scheduler.kv_event_publisher = subscriber

    def submit(self, index: int, prompt: TokenArray, *, answer_tokens: int) -> None:
        """Take request ``index``, and note what a router would expect of it."""
        units = self.unit_hashes(prompt)
        self.promised_tokens[index], self.resumable_tokens[index] = self._promises(units, len(prompt))
        self._waiting[index] = units, self.resumable_index.num_gone
        self._server.submit(index, prompt, answer_tokens=answer_tokens)

    def promises(self, prompt: TokenArray) -> tuple[int, int]:
        """Return how much of a prompt each index promises now: of attention blocks, and of states too."""
        return self._promises(self.unit_hashes(prompt), len(prompt))

    def _promises(self, units: Sequence[Any], num_tokens: int) -> tuple[int, int]:
        blocks = units[self._units_per_block - 1 :: self._units_per_block]
        return (
            min(self.index.promised_tokens(blocks), num_tokens - 1),
            self.resumable_index.promised_tokens(units, num_tokens=num_tokens),
        )

    @property
    def block_worth(self) -> float:
        """What its metrics say of the worth of a block that was evicted lately; 0 where they say nothing."""
        manager = getattr(self.scheduler, "checkpoint_manager", None)
        return 0.0 if manager is None else float(manager.evicted_block_worth)

    def step(self) -> list[Progress]:
        """Work on the requests that it has."""
        done = self._server.step()
        for progress in done:
            if progress.index in self._waiting:
                self.gone_tokens[progress.index] = self._gone(progress)
        return done

    def _gone(self, progress: Progress) -> int:
        """Return how much of what was promised of a request was evicted before its first token."""
        units, since = self._waiting.pop(progress.index)
        promised = self.resumable_tokens[progress.index]
        has_lost = self.resumable_index.has_lost(units, num_tokens=promised, since=since)
        return max(0, promised - progress.cached_tokens) if has_lost else 0

    def forget(self) -> None:
        """Empty the cache."""
        self._server.forget()

    def unit_hashes(self, prompt: TokenArray) -> Sequence[Any]:
        """Return the hashes of the whole match units of a prompt, as events tell them. O(tokens)."""
        from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

        hashes = self._server.request(-1, prompt, answer_tokens=1).block_hashes
        return [maybe_convert_block_hash(each) for each in hashes]


class _Subscriber:
    """In the place of vLLM's publisher: hands the events on to the indices."""

    def __init__(self, *indices: AttentionIndex | ResumableIndex) -> None:
        self._indices = indices

    def publish(self, batch: Any) -> None:
        for index in self._indices:
            index.apply(batch.events)

    def shutdown(self) -> None:
        pass

    def get_publisher_config(self) -> None:
        return None
