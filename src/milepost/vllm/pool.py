"""vLLM's block pool as the memory of a prefix cache.

Cached blocks stay in vLLM's free queue while no request uses them, as in stock vLLM: to its scheduler they
are free memory, and no block can leak. What changes is the order. Blocks of what the cache dropped lose their
hash and go to the front of the queue, where vLLM takes new ones from; so as long as enough *clean* blocks,
those without a hash, lie there, vLLM's own least-recently-used order is never asked.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, final

__all__ = ["BlockMemory", "PrefixBlocks", "VllmMemory"]


class PrefixBlocks(NamedTuple):
    """The blocks that hold something of one exact prefix: its state, or its last piece of KV.

    They are known by what is in them, never by number, so this can outlive them without harm.

    Attributes:
        prefix_hash: vLLM's chained hash of the prefix.
        groups: The cache groups that have a block each.
        num_bytes: What they take, in units of the layout.
    """

    prefix_hash: bytes
    groups: tuple[int, ...]
    num_bytes: int


class BlockMemory(Protocol):
    """What the steward needs of a pool."""

    def num_clean(self, limit: int) -> int:
        """Return how many clean blocks come next, counted up to ``limit``. O(limit)."""

    def retain(self, blocks: PrefixBlocks) -> None:
        """Note that the cache wants to keep ``blocks``."""

    def forget(self, dropped: Iterable[PrefixBlocks]) -> None:
        """Clean what nobody wants to keep any more."""

    def holds(self, blocks: PrefixBlocks) -> bool:
        """Return whether all of ``blocks`` can be hit."""


@final
class VllmMemory:
    """vLLM's ``BlockPool``. It has no interface for this, so its parts are used; see ``compatibility``."""

    def __init__(self, block_pool: Any, make_key: Callable[[bytes, int], bytes]) -> None:
        self._pool = block_pool
        self._make_key = make_key
        # Keys of what the cache keeps. A block may carry several: of itself, and of prefixes inside it.
        self._wanted: set[bytes] = set()

    def num_clean(self, limit: int) -> int:
        """See ``BlockMemory``."""
        queue = self._pool.free_block_queue
        block, end = queue.fake_free_list_head.next_free_block, queue.fake_free_list_tail
        count = 0
        while count < limit and block is not end and block.block_hash is None:
            count += 1
            block = block.next_free_block
        return count

    def retain(self, blocks: PrefixBlocks) -> None:
        """See ``BlockMemory``."""
        self._wanted.update(self._keys(blocks))

    def forget(self, dropped: Iterable[PrefixBlocks]) -> None:
        """See ``BlockMemory``."""
        for blocks in dropped:
            for key in self._keys(blocks):
                self._wanted.discard(key)
                self._clean(key)

    def holds(self, blocks: PrefixBlocks) -> bool:
        """See ``BlockMemory``."""
        cached = self._pool.cached_block_hash_to_block
        return all(cached.get_one_block(key) is not None for key in self._keys(blocks))

    def _keys(self, blocks: PrefixBlocks) -> list[bytes]:
        return [self._make_key(blocks.prefix_hash, group) for group in blocks.groups]

    def _clean(self, key: bytes) -> None:
        pool = self._pool
        cached = pool.cached_block_hash_to_block
        while (block := cached.get_one_block(key)) is not None:
            others: Sequence[bytes] = tuple(pool.cached_block_hashes_by_block.get(block.block_id, ()))
            if not self._wanted.isdisjoint((block.block_hash, *others)):
                # Something else in this block is wanted still.
                return
            pool.evict_blocks({block.block_id})
            if block.ref_cnt == 0 and not block.is_null:
                pool.free_block_queue.remove(block)
                pool.free_block_queue.prepend_n([block])
