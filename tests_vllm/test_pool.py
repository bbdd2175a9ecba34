"""vLLM's own pool as the memory of a cache: what nobody wants is found no more, wherever it lies."""

from types import SimpleNamespace

import pytest
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_utils import get_block_hash, make_block_hash_with_group_id

from milepost.vllm.pool import PrefixBlocks, VllmMemory

GROUP = 3
WHOLE, INSIDE = b"w" * 32, b"i" * 32


@pytest.fixture
def pool():
    return BlockPool(num_gpu_blocks=9, enable_caching=True, hash_block_size=16)


@pytest.fixture
def memory(pool):
    return VllmMemory(
        pool, make_key=make_block_hash_with_group_id, prefix_of=get_block_hash, kv_groups=(GROUP,)
    )


def computed(pool, *, inside):
    """Return a free block of 32 tokens with its hash, and that of the prefix inside it where ``inside``."""
    (block,) = pool.get_new_blocks(1)
    request = SimpleNamespace(request_id="r", block_hashes=[INSIDE, WHOLE], lora_request=None)
    pool.cache_full_blocks(request, [block], 0, 1, 32, GROUP)
    if inside:
        pool.cache_partial_block(
            request=request, block=block, num_tokens=16, kv_cache_group_id=GROUP, block_size=32
        )
    pool.free_blocks([block])
    return block


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second"])
def test_of_two_blocks_with_the_same_that_goes_of_which_nobody_wants_anything(is_first, pool, memory):
    blocks = [computed(pool, inside=is_first), computed(pool, inside=not is_first)]
    wanted, other = blocks if is_first else reversed(blocks)
    memory.retain_kv([WHOLE])
    memory.retain(PrefixBlocks(INSIDE, (GROUP,), 1))
    with memory.deferred():
        memory.forget([WHOLE])
    assert other.block_hash is None, "nobody would ever take it out"
    assert memory.num_clean(9) == 9 - 2
    assert wanted.block_hash is not None
    assert memory.holds(PrefixBlocks(INSIDE, (GROUP,), 1))
    with memory.deferred():
        memory.forget([PrefixBlocks(INSIDE, (GROUP,), 1)])
    assert len(pool.cached_block_hash_to_block) == 0
