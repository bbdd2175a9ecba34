"""The chunks of a CPU tier, and which of them go: all of ``TierPolicy`` that needs nothing of vLLM.

The contract is that of vLLM's ``CachePolicy``, of 0.32 and of 0.33: a chunk is in the tier from its insertion
until it is evicted or removed; eviction takes exactly as many as it is asked for or changes nothing, and
never one that a transfer uses or that is protected.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from milepost.vllm.tier_index import ServedPrompt, TierIndex
from milepost.vllm.tier_order import ByRecency, ByWorth, Order

__all__ = ["Chunk", "TierChunks"]


class Chunk(Protocol):
    """A place in the tier, which vLLM counts the transfers of."""

    @property
    def ref_cnt(self) -> int:
        """Transfers that read it; below 0 while it is written."""


class TierChunks:
    """See the module.

    Args:
        cache_capacity: Chunks that the tier holds.
    """

    def __init__(self, cache_capacity: int) -> None:
        self.cache_capacity = cache_capacity
        self._chunks: dict[bytes, Chunk] = {}
        # Those that no transfer uses.
        self._idle: set[bytes] = set()
        self._order: Order = ByRecency()
        #: Whether it is told of the prompts.
        self.is_joined = False

    def join(
        self,
        make_index: Callable[[int, Callable[[bytes], bool]], TierIndex],
        take_served: Callable[[str], ServedPrompt | None],
    ) -> None:
        """Go by worth from now on, before anything is stored.

        Args:
            make_index: Makes the index of a tier of so many chunks, of what says whether it has one.
            take_served: Returns what is known of a request that is done, once; None where nothing is.
        """
        index = make_index(self.cache_capacity, self._chunks.__contains__)
        self._order = ByWorth(index, take_served=take_served)
        self.is_joined = True

    def get(self, key: bytes) -> Any:
        """Return a chunk, None where there is none. O(1)."""
        return self._chunks.get(key)

    def insert(self, key: bytes, chunk: Any, req_context: Any = None) -> None:
        """Add a chunk that a request is about to fill."""
        self._chunks[key] = chunk
        if chunk.ref_cnt == 0:
            self._idle.add(key)
        self._order.note_inserted(key)

    def remove(self, key: bytes) -> None:
        """Take out a chunk that could not be filled."""
        self._drop(key, is_lost=True)

    def touch(self, keys: Iterable[bytes], req_context: Any) -> None:
        """Do nothing: a request counts once, when it is done."""

    def on_store_miss(self, keys: Iterable[bytes], req_context: Any) -> None:
        """Do nothing."""

    def on_request_access(self, keys: Iterable[bytes], req_context: Any) -> None:
        """Do nothing."""

    def on_request_finished(
        self,
        key_groups: Sequence[Sequence[bytes]],
        insertion_only_keys: set[bytes],
        reused_keys: set[bytes],
        req_context: Any,
    ) -> None:
        """Learn from a request that is done."""
        self._order.note_finished(key_groups, req_context)

    def evict(self, n: int, protected: set[bytes]) -> list[tuple[bytes, Any]] | None:
        """Take out ``n`` chunks that no transfer uses and that are not ``protected``, and return them; None,
        and change nothing, where there are not as many. O(n, and the checkpoints dropped).
        """
        if n <= 0:
            return []
        if len(self._idle) - sum(map(self._idle.__contains__, protected)) < n:
            return None
        # A dictionary, since what is dropped on the way may come by twice.
        chosen: dict[bytes, None] = {}
        for key in self._order.candidates():
            if key in self._idle and key not in protected:
                chosen[key] = None
                if len(chosen) == n:
                    break
        assert len(chosen) == n, "a chunk is in no order"
        evicted = [(key, self._chunks[key]) for key in chosen]
        for key in chosen:
            self._drop(key, is_lost=False)
        return evicted

    def clear(self) -> None:
        """Take out all chunks."""
        self._chunks.clear()
        self._idle.clear()
        self._order.clear()

    def mark_evictable(self, key: bytes) -> None:
        """Note that no transfer uses a chunk any more."""
        self._idle.add(key)

    def mark_non_evictable(self, key: bytes) -> None:
        """Note that a transfer uses a chunk."""
        self._idle.discard(key)

    def check(self) -> None:
        """Recompute what must hold; raise ``AssertionError`` where it does not. O(chunks)."""
        assert self._idle <= self._chunks.keys()
        self._order.check(self._chunks.keys())

    def _drop(self, key: bytes, *, is_lost: bool) -> None:
        del self._chunks[key]
        self._idle.discard(key)
        self._order.note_removed(key, is_lost=is_lost)
