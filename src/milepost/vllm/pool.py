"""vLLM's block pool as the memory of a prefix cache.

Cached blocks stay in vLLM's free queue while no request uses them, as in stock vLLM: to its scheduler they
are free memory, and no block can leak. What changes is the order. Blocks of what the cache dropped lose their
hash and go to the front of the queue, where vLLM takes new ones from; so as long as enough *clean* blocks,
those without a hash, lie there, vLLM's own least-recently-used order is never asked.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol, final

__all__ = ["BlockMemory", "KeptBlocks", "PrefixBlocks", "VllmMemory"]


class PrefixBlocks(NamedTuple):
    """The blocks that hold the state of one exact prefix, and its last piece of KV where that ends inside a
    block.

    They are known by what is in them, never by number, so this can outlive them without harm. So is KV up to
    a block boundary, by the hash of the prefix alone: there is one for every block.

    Attributes:
        prefix_hash: vLLM's chained hash of the prefix.
        groups: The cache groups that have a block each.
        num_bytes: What they take, in units of the layout.
    """

    prefix_hash: bytes
    groups: tuple[int, ...]
    num_bytes: int


class KeptBlocks(Protocol):
    """What a cache says it wants to keep."""

    def retain(self, blocks: PrefixBlocks) -> None:
        """Note that the cache wants to keep ``blocks``."""

    def retain_kv(self, prefix_hashes: Sequence[bytes]) -> None:
        """Note that the cache wants to keep the last KV block of each prefix."""


class BlockMemory(KeptBlocks, Protocol):
    """What a checkpoint manager needs of a pool."""

    def num_clean(self, limit: int) -> int:
        """Return how many clean blocks come next, counted up to ``limit``. O(limit)."""

    def wants(self, blocks: PrefixBlocks) -> bool:
        """Return whether the cache wants to keep ``blocks``."""

    def forget(self, dropped: Iterable[PrefixBlocks | bytes]) -> None:
        """Note that the cache wants these no more, states and KV. Until :meth:`deferred` ends, it may change
        its mind: to make room on a path may drop KV that the next checkpoint of the same path needs.
        """

    def leave(self, dropped: Iterable[PrefixBlocks | bytes]) -> None:
        """Do as :meth:`forget`, and leave the blocks to vLLM as they are."""

    def doubt_state(self, blocks: PrefixBlocks) -> None:
        """Have :meth:`deferred` look after the state in ``blocks``, which somebody may want or not."""

    def doubt_kv(self, prefix_hashes: Iterable[bytes]) -> None:
        """Have :meth:`deferred` look after the last KV block of each prefix, wanted or not."""

    def doubt_everything(self) -> None:
        """Have :meth:`deferred` look after all blocks. O(blocks)."""

    def prefixes_ahead(self, num_blocks: int) -> Sequence[bytes]:
        """Return the prefixes that can be found in the blocks that vLLM takes next. O(num_blocks)."""

    def deferred(self) -> AbstractContextManager[None]:
        """Return a context around whatever drops checkpoints. At its end, also where it raises, the blocks
        that were forgotten or doubted and that nobody wants are cleaned.
        """

    def holds(self, blocks: PrefixBlocks) -> bool:
        """Return whether all of ``blocks`` can be hit."""

    def holds_kv(self, prefix_hash: bytes) -> bool:
        """Return whether the last KV block of a prefix can be hit."""


@final
class VllmMemory:
    """vLLM's ``BlockPool``. It has no interface for this, so its parts are used; see ``compatibility``.

    Args:
        block_pool: The pool.
        make_key: Returns what a block is found by, of the hash of its prefix and its group.
        prefix_of: Returns the hash of the prefix of a key.
        kv_groups: The attention groups.
    """

    def __init__(
        self,
        block_pool: Any,
        *,
        make_key: Callable[[bytes, int], bytes],
        prefix_of: Callable[[bytes], bytes],
        kv_groups: tuple[int, ...],
    ) -> None:
        self._pool = block_pool
        self._make_key = make_key
        self._prefix_of = prefix_of
        self._kv_groups = kv_groups
        # Keys of what the cache keeps. A block may carry several: of itself, and of prefixes inside it.
        self._wanted: set[bytes] = set()
        # Beside them, prefixes whose KV ends at a block boundary, for all attention groups at once.
        self._wanted_kv: set[bytes] = set()
        self._doubtful: list[bytes] = []

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

    def retain_kv(self, prefix_hashes: Sequence[bytes]) -> None:
        """See ``BlockMemory``."""
        self._wanted_kv.update(prefix_hashes)

    def wants(self, blocks: PrefixBlocks) -> bool:
        """See ``BlockMemory``."""
        return self._wanted.issuperset(self._keys(blocks))

    def forget(self, dropped: Iterable[PrefixBlocks | bytes]) -> None:
        """See ``BlockMemory``."""
        for blocks in dropped:
            if isinstance(blocks, bytes):
                self._wanted_kv.discard(blocks)
                self._doubtful += self._kv_keys(blocks)
            else:
                keys = self._keys(blocks)
                self._wanted.difference_update(keys)
                self._doubtful += keys

    def leave(self, dropped: Iterable[PrefixBlocks | bytes]) -> None:
        """See ``BlockMemory``."""
        for blocks in dropped:
            if isinstance(blocks, bytes):
                self._wanted_kv.discard(blocks)
            else:
                self._wanted.difference_update(self._keys(blocks))

    def doubt_state(self, blocks: PrefixBlocks) -> None:
        """See ``BlockMemory``."""
        states = [group for group in blocks.groups if group not in self._kv_groups]
        self._doubtful += [self._make_key(blocks.prefix_hash, group) for group in states]

    def doubt_kv(self, prefix_hashes: Iterable[bytes]) -> None:
        """See ``BlockMemory``."""
        for prefix_hash in prefix_hashes:
            self._doubtful += self._kv_keys(prefix_hash)

    def doubt_everything(self) -> None:
        """See ``BlockMemory``."""
        self._doubtful += [block.block_hash for block in self._pool.blocks if block.block_hash is not None]

    def prefixes_ahead(self, num_blocks: int) -> Sequence[bytes]:
        """See ``BlockMemory``."""
        queue, others_of = self._pool.free_block_queue, self._pool.cached_block_hashes_by_block
        block, end = queue.fake_free_list_head.next_free_block, queue.fake_free_list_tail
        prefixes: list[bytes] = []
        while num_blocks > 0 and block is not end:
            if block.block_hash is not None:
                keys = (block.block_hash, *others_of.get(block.block_id, ()))
                prefixes += map(self._prefix_of, keys)
            num_blocks -= 1
            block = block.next_free_block
        return prefixes

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """See ``BlockMemory``. What is free then comes next."""
        try:
            yield
        finally:
            self._clean()

    def _clean(self) -> None:
        if not self._doubtful:
            return
        pool = self._pool
        known, others_of = pool.cached_block_hash_to_block, pool.cached_block_hashes_by_block
        free: list[Any] = []
        for key in self._doubtful:
            if self._is_wanted(key):
                continue
            kept: list[Any] = []
            while (block := known.get_one_block(key)) is not None:
                others: Iterable[bytes] = others_of.get(block.block_id, ())
                if any(map(self._is_wanted, (block.block_hash, *others))):
                    # Out of the way of others that hold the same, as they may where stock's rule has led.
                    kept.append(known.pop(key, block.block_id))
                    continue
                pool.evict_blocks({block.block_id})
                if block.ref_cnt == 0 and not block.is_null:
                    pool.free_block_queue.remove(block)
                    free.append(block)
            for block in kept:
                known.insert(key, block)
        self._doubtful.clear()
        if free:
            pool.free_block_queue.prepend_n(free)

    def holds(self, blocks: PrefixBlocks) -> bool:
        """See ``BlockMemory``."""
        return self._holds(self._keys(blocks))

    def holds_kv(self, prefix_hash: bytes) -> bool:
        """See ``BlockMemory``."""
        return self._holds(self._kv_keys(prefix_hash))

    def wanted_keys(self) -> set[bytes]:
        """Return the keys of all that the cache keeps. O(n)."""
        return self._wanted.union(*map(self._kv_keys, self._wanted_kv))

    def _keys(self, blocks: PrefixBlocks) -> list[bytes]:
        return [self._make_key(blocks.prefix_hash, group) for group in blocks.groups]

    def _kv_keys(self, prefix_hash: bytes) -> list[bytes]:
        return [self._make_key(prefix_hash, group) for group in self._kv_groups]

    def _holds(self, keys: list[bytes]) -> bool:
        cached = self._pool.cached_block_hash_to_block
        return all(cached.get_one_block(key) is not None for key in keys)

    def _is_wanted(self, key: bytes) -> bool:
        if key in self._wanted:
            return True
        prefix_hash = self._prefix_of(key)
        return prefix_hash in self._wanted_kv and key in self._kv_keys(prefix_hash)
