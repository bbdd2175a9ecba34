"""Every policy on random traffic: the store's law holds after each request, and a run repeats exactly."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_replay import Replay

from milepost.errors import CapacityError
from milepost.policies import describe_policies

NOTATIONS = tuple(notation for notation, _ in describe_policies())
PEERS = (
    "vllm",
    "sglang",
    "sglang:share=0.3,chunk=32",
    "tensorrt:end=16+48,branch=yes",
    "marconi",
    "marconi:1",
    "clairvoyant",
)


def words_of(choices: list[tuple[int, int, int]]) -> list[str]:
    """Prompts that go on from, or part within, earlier ones; some are the beginning of others, some equal."""
    words: list[str] = []
    for which, keep, add in choices:
        before = words[which % len(words)] if words and which % 4 else ""
        new = "".join("ab"[(add >> bit) & 1] for bit in range(add % 6))
        words.append((before[: keep % (len(before) + 1)] + new) or "a")
    return words


small = st.integers(0, 255)
traffic = st.lists(st.tuples(small, small, small), min_size=1, max_size=25).map(words_of)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(words=traffic, capacity_blocks=st.integers(20, 60), state_blocks=st.integers(1, 4))
@pytest.mark.parametrize("policy", PEERS)
def test_the_law_of_the_store_holds_after_each_request(policy, words, capacity_blocks, state_blocks):
    replay = Replay(policy, capacity_blocks=capacity_blocks, state_blocks=state_blocks)
    reused = replay.run(words)  # checks after each
    assert all(0 <= blocks < len(word) for blocks, word in zip(reused, words, strict=True))
    account = replay.cache.statistics()
    assert account.num_tokens == account.reused + (
        account.unseen + account.alignment + account.placement + account.eviction
    )
    share = replay.policy.state_share
    if share is not None:
        assert account.checkpoint_bytes <= share * account.capacity_bytes
        assert account.kv_bytes <= account.capacity_bytes - int(share * account.capacity_bytes)


@pytest.mark.parametrize("policy", NOTATIONS)
def test_the_same_requests_give_the_same_numbers(policy):
    rng = random.Random(7)
    words = words_of([tuple(rng.randrange(256) for _ in range(3)) for _ in range(80)])
    first, second = (Replay(policy, capacity_blocks=40) for _ in range(2))
    assert first.run(words) == second.run(words)
    assert first.cache.statistics() == second.cache.statistics()


def test_a_pool_that_cannot_hold_one_state_is_refused():
    with pytest.raises(CapacityError, match=r"state_share=0\.1"):
        Replay("sglang:share=0.1", capacity_blocks=30, state_blocks=4)
