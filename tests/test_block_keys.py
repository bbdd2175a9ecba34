"""Block hashes as keys: the cache does with blocks what it does with the tokens that they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.accounting import RequestReport
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.footprint import Footprint
from milepost.placement import Balanced, Dense, Junction, PromptTail, TailAndJunction
from milepost.policies import CachePolicy, learned
from milepost.prefix_cache import PrefixCache

BLOCK = 4
STATE_BYTES = 50

# The first plan of a process compiles or loads the kernels.
compiles_first = settings(deadline=None, derandomize=True)


class Payload:
    num_bytes = STATE_BYTES


class Source:
    def __init__(self, segment_tokens):
        self.segment_tokens = segment_tokens

    def checkpoint(self, position):
        return Payload()

    def kv_segments(self, start, end):
        return (None,) * ((end - start) // self.segment_tokens)


def new_cache(
    policy, *, key_tokens=BLOCK, grid=BLOCK, capacity=1 << 30, history_tokens=None, state=STATE_BYTES
):
    return PrefixCache(
        capacity_bytes=capacity,
        footprint=Footprint(checkpoint_bytes=state, kv_bytes_per_token=1),
        policy=policy,
        grid=grid,
        key_tokens=key_tokens,
        history_tokens=history_tokens,
    )


def serve(cache: PrefixCache, keys, *, num_tokens=None, tenant="") -> tuple[tuple[int, ...], RequestReport]:
    with cache.acquire(keys, num_tokens=num_tokens, tenant=tenant) as lease:
        placement = cache.plan(lease)
        report = cache.commit(lease, placement, Source(cache.grid))
    cache.check()
    return placement.positions, report


def as_blocks(words):
    """What stands for all tokens up to the end of each block, as a log would number them."""
    return np.array([hash(tuple(words[: end + 1])) & 0xFFFF_FFFF for end in range(len(words))], np.int64)


def as_tokens(words, num_tokens):
    """The same blocks as tokens: each the same token throughout."""
    return np.repeat(np.array(words, np.int32), BLOCK)[:num_tokens]


policies = st.sampled_from(
    [
        PromptTail,
        TailAndJunction,
        lambda: Dense(every=2 * BLOCK),
        lambda: Balanced(count=3),
        lambda: CachePolicy(TailAndJunction(), keeps_kv=True),
    ]
)
requests = st.lists(
    st.tuples(
        st.lists(st.integers(0, 1), min_size=1, max_size=24),
        st.integers(0, BLOCK - 1),
        st.sampled_from(["", "other"]),
    ),
    max_size=12,
)
capacities = st.integers(60, 300) | st.just(1 << 30)


@settings(compiles_first, max_examples=60)
@given(
    policies | st.sampled_from([Junction, learned]),
    requests,
    capacities,
    st.sampled_from([BLOCK, 2 * BLOCK]),
    st.sampled_from([80, 10_000]),
    st.sampled_from([0, STATE_BYTES]),
)
def test_whole_blocks_are_placed_stored_and_accounted_for_as_their_tokens_are(
    policy, sequence, capacity, grid, history_tokens, state
):
    known = {"grid": grid, "capacity": capacity, "history_tokens": history_tokens, "state": state}
    blocks, tokens = new_cache(policy(), **known), new_cache(policy(), key_tokens=1, **known)
    for words, _, tenant in sequence:
        by_block = serve(blocks, as_blocks(words), tenant=tenant)
        assert by_block == serve(tokens, as_tokens(words, len(words) * BLOCK), tenant=tenant)
    assert blocks.statistics() == tokens.statistics()


@settings(compiles_first, max_examples=60)
@given(policies, requests, capacities, st.sampled_from([BLOCK, 2 * BLOCK]))
def test_of_a_partial_last_block_nothing_is_known_but_all_else_is_the_same(policy, sequence, capacity, grid):
    blocks = new_cache(policy(), grid=grid, capacity=capacity)
    tokens = new_cache(policy(), grid=grid, capacity=capacity, key_tokens=1)
    for words, missing, tenant in sequence:
        num_tokens = len(words) * BLOCK - missing
        placed, report = serve(blocks, as_blocks(words), num_tokens=num_tokens, tenant=tenant)
        others, expected = serve(tokens, as_tokens(words, num_tokens), tenant=tenant)
        assert placed == others
        assert (report.num_tokens, report.reused) == (num_tokens, expected.reused)
        assert (report.placement, report.eviction) == (expected.placement, expected.eviction)
        # Whether a part of a block was shared, blocks cannot tell.
        assert report.unseen + report.alignment == expected.unseen + expected.alignment
        assert 0 <= report.unseen - expected.unseen < BLOCK
    held, wanted = blocks.statistics(), tokens.statistics()
    assert (held.checkpoint_bytes, held.kv_bytes) == (wanted.checkpoint_bytes, wanted.kv_bytes)


def test_a_prompt_shorter_than_a_block_is_served_and_leaves_nothing():
    cache = new_cache(TailAndJunction())
    for _ in range(2):
        placed, report = serve(cache, [7], num_tokens=3)
        assert (placed, report.reused, report.unseen) == ((), 0, 3)
    assert cache.statistics().history_tokens == 0


def test_a_longer_prompt_resumes_behind_the_last_whole_block_of_a_shorter_one():
    cache = new_cache(PromptTail())
    serve(cache, [11, 12, 13], num_tokens=10)
    _, report = serve(cache, [11, 12, 99, 98], num_tokens=16)
    assert (report.reused, report.unseen) == (8, 8)


def test_the_key_of_a_partial_block_may_be_left_out():
    with_it, without = new_cache(PromptTail()), new_cache(PromptTail())
    for last in range(3):
        keys = [11, 12, 20 + last]
        assert serve(with_it, keys, num_tokens=10) == serve(without, keys[:2], num_tokens=10)
        checked = np.frombuffer(np.array(keys[:2], np.int64).tobytes(), np.int64)
        assert serve(with_it, keys, num_tokens=10) == serve(without, checked, num_tokens=10)
    assert with_it.statistics() == without.statistics()


def test_keys_beyond_32_bits_are_told_apart():
    cache = new_cache(PromptTail())
    serve(cache, [1 << 40, 5, 6])
    assert serve(cache, [1 << 41, 5, 6])[1].unseen == 12
    assert serve(cache, [1 << 40, 5, 7])[1].unseen == 4


@pytest.mark.parametrize(
    ("keys", "num_tokens", "says"),
    [
        ([1, 2, 3], 8, "3 keys for 8 tokens"),
        ([1], 9, "1 keys for 9 tokens"),
        ([], None, "give one whole number a block"),
        ([], 0, "give one whole number a block"),
        ([1.5], 4, "dtype float64"),
        ([[1, 2]], 8, "2 dimensions"),
    ],
)
def test_keys_that_do_not_cover_the_prompt_are_refused_and_change_nothing(keys, num_tokens, says):
    cache = new_cache(PromptTail())
    serve(cache, [1, 2, 3])
    before = cache.statistics()
    with pytest.raises(InvalidRequestError, match=says):
        cache.acquire(keys, num_tokens=num_tokens)
    assert cache.statistics() == before


@pytest.mark.parametrize(("key_tokens", "grid"), [(3, 4), (8, 4)])
def test_a_grid_step_is_a_whole_number_of_keys(key_tokens, grid):
    with pytest.raises(ConfigurationError, match=f"grid={grid}.*key_tokens={key_tokens}"):
        new_cache(PromptTail(), key_tokens=key_tokens, grid=grid)


def test_the_callers_keys_may_be_filled_anew_at_once():
    cache = new_cache(PromptTail())
    keys = np.array([1, 2, 3], np.int64)
    with cache.acquire(keys) as lease:
        keys[:] = 9
        cache.commit(lease, cache.plan(lease), Source(BLOCK))
    assert serve(cache, [1, 2, 3])[1].reused == 8
    assert keys.flags.writeable
