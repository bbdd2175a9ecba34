"""A CPU tier keeps vLLM's contract whatever is stored, loaded and evicted, and keeps whole checkpoints."""

import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.policies import learned
from milepost.vllm.layout import PoolLayout
from milepost.vllm.tier_chunks import TierChunks
from milepost.vllm.tier_index import ServedPrompt, TierIndex, make_key

CHUNK = 16
STATES, KV = (0, 1), (2,)


@dataclass
class Place:
    ref_cnt: int = -1


class Request:
    """One request as vLLM's connector knows it."""

    def __init__(self, name, tokens):
        self.req_id = name
        self.hashes = [
            hashlib.sha256(repr(tokens[:end]).encode()).digest()
            for end in range(CHUNK, len(tokens) + 1, CHUNK)
        ]
        self.num_tokens = len(tokens)

    def key(self, position, group):
        return make_key(self.hashes[position // CHUNK - 1], group)

    def get_offload_key_position(self, key):
        return (self.hashes.index(key[:-4]) + 1) * CHUNK

    def keys(self, state_positions=()):
        """Return the keys of its KV, and of its states there, by group."""
        ends = range(CHUNK, len(self.hashes) * CHUNK + 1, CHUNK)
        groups = [[self.key(at, group) for at in state_positions] for group in STATES]
        return [*groups, [self.key(at, KV[0]) for at in ends]]


class Tier:
    """vLLM's manager around the chunks, in short."""

    def __init__(self, capacity, *, is_joined=True, with_context=False):
        self.chunks = TierChunks(capacity)
        self.capacity = capacity
        self.served = {}
        self.places = {}
        self.with_context = with_context
        if is_joined:
            self.chunks.join(self.make_index, lambda name: self.served.pop(name, None))

    def make_index(self, capacity, is_resident):
        layout = PoolLayout(
            num_blocks=capacity, block_tokens=CHUNK, match_tokens=CHUNK, kv_groups=KV, state_groups=STATES
        )
        self.index = TierIndex(layout, policy=learned(), is_resident=is_resident)
        return self.index

    def store(self, keys, request=None):
        """Make room for the new ones of ``keys``, begin to fill them, and return them; None without room."""
        new = [key for key in keys if self.chunks.get(key) is None]
        short = len(new) + len(self.places) - self.capacity
        if short > 0:
            evicted = self.chunks.evict(short, set(keys))
            if evicted is None:
                return None
            assert len(evicted) == len(dict(evicted)) == short
            for key, place in evicted:
                assert place is self.places.pop(key)
                assert place.ref_cnt == 0
                assert key not in keys
        for key in new:
            self.places[key] = Place()
            context = (request,) if self.with_context else ()
            self.chunks.insert(key, self.places[key], *context)
        return new

    def stored(self, keys):
        for key in keys:
            self.places[key].ref_cnt = 0
            self.chunks.mark_evictable(key)

    def serve(self, request, state_positions=()):
        groups = request.keys(state_positions)
        stored = self.store([key for keys in groups for key in keys], request)
        if stored is not None:
            self.stored(stored)
        self.finish(request, groups)
        return stored

    def finish(self, request, groups):
        self.served[request.req_id] = ServedPrompt(request.hashes, request.num_tokens)
        self.chunks.on_request_finished(groups, set(), set(), request)

    def has(self, request, position):
        keys = [request.key(position, group) for group in STATES]
        keys += [request.key(at, KV[0]) for at in range(CHUNK, position + 1, CHUNK)]
        return all(self.chunks.get(key) is not None for key in keys)


DOCUMENTS = [[seed * 1000 + at for at in range(160)] for seed in range(4)]
PROMPTS = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 3))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("serve"), PROMPTS, st.sets(st.integers(1, 9), max_size=3)),
        st.tuples(st.just("begin"), PROMPTS, st.sets(st.integers(1, 9), max_size=3)),
        st.tuples(st.just("load"), PROMPTS, st.integers(1, 9)),
        st.tuples(st.just("fail"), st.integers(0, 99), st.none()),
        st.tuples(st.just("land"), st.integers(0, 99), st.none()),
        st.tuples(st.just("evict"), st.integers(0, 30), st.integers(0, 99)),
        st.tuples(st.just("clear"), st.none(), st.none()),
    ),
    max_size=40,
)


@pytest.mark.parametrize("is_joined", [True, False], ids=["by-worth", "by-recency"])
@pytest.mark.parametrize("with_context", [False, True], ids=["0.32", "0.33"])
@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS, capacity=st.integers(4, 40))
def test_it_keeps_the_contract(is_joined, with_context, operations, capacity):
    tier = Tier(capacity, is_joined=is_joined, with_context=with_context)
    open_jobs = []

    def request_of(prompt):
        document, num_shared, last = prompt
        tokens = [*DOCUMENTS[document][: num_shared * CHUNK], *range(9000 + last, 9017 + last)]
        return Request(f"r{len(open_jobs)}.{prompt}", tokens)

    for what, first, second in operations:
        if what in ("serve", "begin"):
            request = request_of(first)
            positions = sorted({at * CHUNK for at in second if at <= len(request.hashes)})
            if what == "serve":
                tier.serve(request, positions)
            else:
                keys = [key for keys in request.keys(positions) for key in keys]
                open_jobs.append((request, tier.store(keys, request) or [], request.keys(positions)))
        elif what == "load":
            keys = [key for key in request_of(first).keys()[-1][:second] if key in tier.places]
            if all(tier.places[key].ref_cnt >= 0 for key in keys):
                for key in keys:
                    if tier.places[key].ref_cnt == 0:
                        tier.chunks.mark_non_evictable(key)
                    tier.places[key].ref_cnt += 1
                open_jobs.append((None, keys, None))
        elif what in ("fail", "land") and open_jobs:
            request, keys, groups = open_jobs.pop(first % len(open_jobs))
            if request is None:
                for key in keys:
                    tier.places[key].ref_cnt -= 1
                    if tier.places[key].ref_cnt == 0:
                        tier.chunks.mark_evictable(key)
            elif what == "land":
                tier.stored(keys)
                tier.finish(request, groups)
            else:
                # Transfers end before or after their request.
                if first % 2:
                    tier.finish(request, groups)
                for key in keys:
                    tier.chunks.remove(key)
                    del tier.places[key]
        elif what == "evict":
            protected = set(list(tier.places)[: second % 7])
            idle = {key for key, place in tier.places.items() if place.ref_cnt == 0} - protected
            before = dict(tier.places)
            evicted = tier.chunks.evict(first, protected)
            if first > len(idle):
                assert evicted is None
                assert all(tier.chunks.get(key) is place for key, place in before.items())
            else:
                assert len(evicted) == len(dict(evicted)) == first
                assert dict(evicted).keys() <= idle
                for key, place in evicted:
                    assert tier.places.pop(key) is place
        elif what == "clear":
            tier.chunks.clear()
            tier.places.clear()
            open_jobs.clear()
        tier.chunks.check()
        assert len(tier.places) <= capacity
        assert all(tier.chunks.get(key) is place for key, place in tier.places.items())
    absent = Request("absent", list(range(7000, 7016)))
    assert tier.chunks.get(absent.key(CHUNK, 0)) is None


def test_what_no_state_needs_goes_first():
    tier = Tier(20)
    used = Request("used", [*DOCUMENTS[0][:96], 1])
    tier.serve(used, [96])
    tier.serve(Request("unused", DOCUMENTS[1]), [])
    # Full: the KV of the second prompt has no state to resume from.
    tier.serve(Request("third", [*DOCUMENTS[2][:96], 1]), [96])
    assert tier.has(used, 96)
    tier.chunks.check()


def test_a_state_goes_with_the_kv_that_only_it_needs():
    tier = Tier(16)
    first, second = (Request(name, [*DOCUMENTS[at][:96], 1]) for at, name in ((0, "first"), (1, "second")))
    tier.serve(first, [96])
    tier.serve(second, [96])
    tier.serve(Request("third", [*DOCUMENTS[2][:96], 1]), [96])
    whole = [tier.has(each, 96) for each in (first, second)]
    states = [
        sum(tier.chunks.get(each.key(96, group)) is not None for group in STATES) for each in (first, second)
    ]
    assert whole.count(True) == 1
    assert sorted(states) == [0, 2], "half a checkpoint is none"


def test_what_requests_come_back_to_stays():
    tier = Tier(40)
    wanted = Request("wanted", [*DOCUMENTS[0][:96], 1])
    tier.serve(wanted, [96])
    for number in range(12):
        tier.serve(Request(f"wanted{number}", [*DOCUMENTS[0][:96], 2 + number]), [96])
        for other in range(3):
            tokens = list(range(20_000 + 1000 * (3 * number + other), 20_097 + 1000 * (3 * number + other)))
            tier.serve(Request(f"once{number}.{other}", tokens), [96])
    assert tier.has(wanted, 96)


def test_the_answer_can_be_resumed_from_too():
    tier = Tier(20)
    request = Request("chat", DOCUMENTS[0][:112])
    request.num_tokens = 70
    tier.serve(request, [64, 112])
    assert tier.index.wants(request.key(112, 0))
    tier.chunks.check()


def test_alone_the_checkpoints_that_were_not_used_longest_go_first():
    tier = Tier(24, is_joined=False)
    first, second, third = (Request(f"r{at}", [*DOCUMENTS[at][:96], 1]) for at in range(3))
    for request in (first, second, third, first):
        tier.serve(request, [96])
    tier.serve(Request("fourth", [*DOCUMENTS[3][:96], 1]), [96])
    assert [tier.has(each, 96) for each in (first, second, third)] == [True, False, True]


def test_alone_what_lies_behind_the_last_whole_checkpoint_goes_first():
    tier = Tier(24, is_joined=False)
    first = Request("first", DOCUMENTS[0])
    tier.serve(first, [96])
    second = Request("second", DOCUMENTS[1])
    tier.serve(second, [96])
    assert tier.has(first, 96)
    assert tier.chunks.evict(4, set()) is not None
    assert tier.has(first, 96)
    assert tier.has(second, 96)
