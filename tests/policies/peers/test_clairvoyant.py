"""The clairvoyant: only what will be used, and longest what saves most soonest."""

import random

import numpy as np
import pytest
from peer_replay import BLOCK, Replay, requests_of

from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.policies import parse_policy
from milepost.policies.peers.clairvoyant import Foresight
from milepost.traces import TraceRequest

PLENTY = 1000


def test_it_places_where_requests_to_come_will_part_and_nowhere_else():
    replay = Replay("clairvoyant", capacity_blocks=PLENTY)
    # Nobody needs to see a junction first.
    assert replay.run(["aaaabb", "aaaacc", "aaaadd", "xxxx", "aaaaccee"]) == [0, 4, 4, 0, 6]
    statistics = replay.cache.statistics()
    assert statistics.checkpoints_stored == 2
    assert statistics.placement == statistics.eviction == 0


def test_the_same_prompt_again_computes_one_block():
    assert Replay("clairvoyant", capacity_blocks=PLENTY).run(["aaaa", "aaaa"]) == [0, 3]


def test_a_prompt_that_is_longer_later_is_resumed_at_its_end():
    assert Replay("clairvoyant", capacity_blocks=PLENTY).run(["aaaa", "aaaabb", "aaaabbcc"]) == [0, 4, 6]


def test_of_those_that_do_not_fit_together_the_ones_used_sooner_stay():
    # Each takes 4 blocks and a state of 2; when the third comes, the second will be used last.
    words = ["aaaa", "bbbb", "cccc", "aaaad", "ccccd", "bbbbd"]
    assert Replay("clairvoyant", capacity_blocks=13).run(words) == [0, 0, 0, 4, 4, 0]
    assert Replay("tensorrt:end=0", capacity_blocks=13).run(words)[3:5] == [0, 4]


def test_of_two_used_equally_soon_the_one_that_saves_more_per_byte_stays():
    # 8 blocks for 10, against 2 for 4.
    words = ["bb", "aaaaaaaa", "x", "aaaaaaaac", "bbc"]
    assert Replay("clairvoyant", capacity_blocks=12).run(words) == [0, 0, 0, 8, 0]
    words = ["bb", "aaaaaaaa", "x", "bbc", "aaaaaaaac"]
    assert Replay("clairvoyant", capacity_blocks=12).run(words)[3:] in ([0, 8], [2, 0])


def test_what_is_used_no_more_goes_first_however_recent():
    words = ["aaaa", "bbbb", "bbbbc", "dddd", "aaaac", "ddddc"]
    # After its one use the second prompt is worth nothing, and the first one waits the longest.
    assert Replay("clairvoyant", capacity_blocks=13).run(words) == [0, 0, 4, 0, 4, 4]
    assert Replay("tail", capacity_blocks=13).run(words) == [0, 0, 3, 0, 0, 3]


def test_it_serves_only_what_it_has_foreseen():
    with pytest.raises(InvalidRequestError, match="request 0 has 64 tokens, foreseen was none"):
        Replay("clairvoyant", capacity_blocks=PLENTY).serve("aaaa")
    replay = Replay("clairvoyant", capacity_blocks=PLENTY)
    replay.policy.prepare(requests_of(["aaaa", "bb"]))
    replay.serve("aaaa")
    with pytest.raises(InvalidRequestError, match="request 1 has 48 tokens, foreseen was 32"):
        replay.serve("bbb")
    with pytest.raises(ConfigurationError, match="the replay has begun"):
        replay.policy.prepare(requests_of(["aaaa"]))


def test_only_a_policy_that_knows_the_future_is_to_be_prepared():
    assert parse_policy("clairvoyant").prepare is not None
    assert parse_policy("learned").prepare is None


def test_tenants_share_no_future():
    foresight = Foresight()
    foresight.read([_of_tenant("a"), _of_tenant("b"), _of_tenant("a")])
    assert foresight.uses(0) == [(3 * BLOCK, [2])]
    assert foresight.uses(1) == []


@pytest.mark.parametrize("seed", range(5))
def test_uses_are_where_each_request_parts_from_all_before(seed):
    rng = random.Random(seed)
    words: list[str] = []
    for _ in range(60):
        before = rng.choice(words) if words and rng.random() < 0.7 else ""
        words.append(before[: rng.randint(0, len(before))] + "".join(rng.choices("ab", k=rng.randint(1, 6))))
    foresight = Foresight()
    foresight.read(requests_of(words))
    for index, word in enumerate(words):
        expected: dict[int, list[int]] = {}
        for other, later in enumerate(words):
            depth = min(max((_shared(later, w) for w in words[:other]), default=0), len(later) - 1)
            if depth and later[:depth] == word[:depth]:
                expected.setdefault(depth, []).append(other)
        assert foresight.uses(index) == sorted((depth * BLOCK, uses) for depth, uses in expected.items())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("other", ["vllm", "sglang", "marconi", "tail+junction", "dense:16", "learned"])
def test_it_reuses_at_least_as_much_as_others_on_mixed_traffic(other, seed):
    words = _mixed_traffic(seed)
    reused = {}
    for policy in ("clairvoyant", other):
        replay = Replay(policy, capacity_blocks=150, state_blocks=6)
        reused[policy] = sum(replay.run(words))
    assert reused["clairvoyant"] >= reused[other]


def _of_tenant(tenant):
    keys = np.arange(4)
    return TraceRequest(keys=keys, key_tokens=BLOCK, num_tokens=4 * BLOCK, request_id="", tenant=tenant)


def _shared(left, right):
    return next(
        (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )


def _mixed_traffic(seed):
    """Conversations that go on, documents asked about, and prompts that never come again, all mixed."""
    rng = random.Random(seed)
    fresh = map(chr, range(1000, 100_000))
    documents = ["".join(next(fresh) for _ in range(rng.randint(8, 20))) for _ in range(8)]
    chats = [""] * 10
    words = []
    for _ in range(150):
        kind = rng.random()
        new = "".join(next(fresh) for _ in range(rng.randint(2, 6)))
        if kind < 0.4:
            chat = rng.randrange(len(chats))
            chats[chat] += new
            words.append(chats[chat])
            if len(chats[chat]) > 40:
                chats[chat] = ""
        else:
            words.append(rng.choice(documents) + new if kind < 0.7 else new)
    return words
