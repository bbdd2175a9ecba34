"""What must hold of vLLM's pool and of the checkpoint manager's belief about it, whatever has happened."""

from collections import Counter


def cached_blocks(scheduler) -> list[set]:
    """Return the keys of each block that a lookup can find."""
    pool = scheduler.kv_cache_manager.block_pool
    blocks = [
        {block.block_hash, *pool.cached_block_hashes_by_block.get(block.block_id, ())}
        for block in pool.blocks
        if block.block_hash is not None
    ]
    assert set().union(*blocks) == set(pool.cached_block_hash_to_block._cache)
    return blocks


def believed_keys(scheduler) -> set:
    """Return the keys of what the manager's cache holds; they add up to what it says it holds."""
    manager = scheduler.checkpoint_manager
    manager.catch_up()
    manager.check()
    layout, memory = manager.layout, manager._memory
    account = manager.statistics()
    num_blocks = (account.checkpoint_bytes + account.kv_bytes) // layout.block_tokens
    wanted = memory.wanted_keys()
    assert len(wanted) == num_blocks, (len(wanted), num_blocks, account.num_checkpoints)
    return wanted


def assert_no_orphans(scheduler) -> None:
    """Every block that can be found holds something the cache knows and can drop: nothing piles up. Where
    stock's rule leads, vLLM keeps more, and takes it by itself.
    """
    believed = believed_keys(scheduler)
    if not scheduler.checkpoint_manager.is_led_by_learning:
        return
    orphans = [keys for keys in cached_blocks(scheduler) if keys.isdisjoint(believed)]
    assert not orphans, f"{len(orphans)} cached blocks are unknown to the cache"


def num_missing(scheduler) -> int:
    """Return how much of what the cache believes to be there is gone."""
    return len(believed_keys(scheduler) - set().union(*cached_blocks(scheduler)))


def num_twice(scheduler) -> int:
    """Return how many blocks hold what another holds as well."""
    counts = Counter(key for keys in cached_blocks(scheduler) for key in keys)
    return sum(count - 1 for count in counts.values())


def assert_idle(scheduler, *, most_missing: int = 0) -> None:
    """No request is left, and nothing of one: all blocks are free, and hold just what the cache believes."""
    manager = scheduler.kv_cache_manager
    pool = manager.block_pool
    assert not scheduler.requests
    assert not scheduler.running
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "a block leaked"
    free = pool.free_block_queue.get_all_free_blocks()
    assert sorted(block.block_id for block in free) == list(range(1, pool.num_gpu_blocks))
    assert all(block.ref_cnt == 0 for block in pool.blocks if not block.is_null)
    for part in manager.coordinator.single_type_managers:
        assert not part.req_to_blocks
        assert not part.num_cached_block
        assert not part._partial_hit_reqs
    if hasattr(scheduler, "checkpoint_manager"):
        assert scheduler.checkpoint_manager.num_open == 0
        assert scheduler.checkpoint_manager._cache.current._store.queue.pinned == [], "a lease is open"
        assert_no_orphans(scheduler)
        assert num_missing(scheduler) <= most_missing
        is_cached = [block.block_hash is not None for block in free]
        assert is_cached == sorted(is_cached), "a block without content lies behind one with"


def blocks_of_a_prompt(scheduler) -> int:
    """Return how many keys may be gone without anyone having noticed: vLLM takes them from the queue where
    all the rest is in use, and the cache learns of it at the next lookup.
    """
    return scheduler.checkpoint_manager.layout.num_blocks // 2
