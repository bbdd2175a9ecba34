"""A cache whose memory belongs to someone else: it can shrink, be given back, be forgotten, and get lost."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import ConfigurationError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import Balanced, Dense, Placement, PromptTail, TailAndJunction
from milepost.policies import CachePolicy, learned

GRID = 4
FOOTPRINTS = [
    Footprint(checkpoint_bytes=50, kv_bytes_per_token=1),
    Footprint(checkpoint_bytes=50, kv_bytes_per_token=0),
]


@dataclass(frozen=True)
class Payload:
    name: tuple
    num_bytes: int


class Owner:
    """Hands out payloads, each with a name of its own, and takes them back."""

    def __init__(self):
        self.live = Counter()
        self.num_made = 0

    def drop(self, payloads):
        for payload in payloads:
            if payload is not None:
                self.live[payload] -= 1
                assert self.live[payload] == 0, "dropped twice, or never handed out"
                del self.live[payload]

    def source(self, footprint):
        owner = self

        class Source:
            def checkpoint(self, position):
                return owner._make("state", footprint.checkpoint_bytes)

            def kv_segments(self, start, end):
                num_bytes = GRID * footprint.kv_bytes_per_token
                return [owner._make("kv", num_bytes) for _ in range(start, end, GRID)]

        return Source()

    def _make(self, kind, num_bytes):
        self.num_made += 1
        payload = Payload((kind, self.num_made), num_bytes)
        self.live[payload] += 1
        return payload


def new_cache(owner, *, capacity_bytes=1000, footprint=FOOTPRINTS[0], policy=None, **options):
    return HostedCache(
        capacity_bytes=capacity_bytes,
        footprint=footprint,
        policy=Dense(every=8) if policy is None else policy,
        grid=GRID,
        on_drop=owner.drop,
        **options,
    )


def serve(cache, owner, tokens):
    with cache.acquire(tokens) as lease:
        return cache.commit(lease, cache.plan(lease), owner.source(cache.footprint))


def stored(cache) -> Counter:
    """Return every payload that the store holds."""
    payloads = Counter()
    for node in cache._store.tree.nodes():
        payloads.update(node.kv)
        payloads.update(c.payload for c in node.checkpoints if c.payload is not None)
    return payloads


policies = st.sampled_from(
    [
        PromptTail,
        TailAndJunction,
        lambda: Dense(every=8),
        lambda: Balanced(count=3),
        lambda: CachePolicy(TailAndJunction(), keeps_kv=True),
        lambda: CachePolicy(TailAndJunction(), keeps_kv=True, state_share=0.5),
        learned,
    ]
)
tokens = st.lists(st.integers(0, 1), min_size=1, max_size=40)
acts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["commit", "commit", "abandon", "discard"]), tokens),
        st.tuples(st.just("settle"), st.integers(0, 5), st.integers(0, 2)),
        st.tuples(st.just("resize"), st.integers(0, 400)),
        st.tuples(st.sampled_from(["evict_least", "clear"])),
    ),
    max_size=30,
)


@given(policies, st.sampled_from(FOOTPRINTS), acts)
def test_every_payload_is_stored_or_reported_once(policy, footprint, script):
    owner = Owner()
    cache = new_cache(owner, capacity_bytes=300, footprint=footprint, policy=policy())
    open_leases = []
    for act, *what in script:
        if act == "commit":
            lease = cache.acquire(what[0])
            cache.commit(lease, cache.plan(lease), owner.source(footprint))
            open_leases.append(lease)
        elif act == "abandon":
            cache.acquire(what[0]).release()
        elif act == "discard":
            cache.acquire(what[0]).discard()
        elif act == "settle" and open_leases:
            lease = open_leases.pop(what[0] % len(open_leases))
            cache.confirm(lease, lambda payload, lost=what[1]: payload.name[1] % 3 >= lost)
        elif act == "resize":
            cache.resize(what[0])
        elif act == "evict_least":
            cache.evict_least()
        elif act == "clear":
            cache.clear()
        assert owner.live == stored(cache)
        assert sum(payload.num_bytes for payload in owner.live) == cache.stored_bytes
        cache.check()
    for lease in open_leases:
        cache.confirm(lease, lambda payload: True)
    cache.clear()
    if not cache.policy.keeps_kv:
        assert not owner.live
    cache.check()


def test_kv_that_is_kept_without_a_state_goes_too():
    owner = Owner()
    cache = new_cache(owner, policy=CachePolicy(TailAndJunction(), keeps_kv=True))
    for first in range(3):
        serve(cache, owner, [first, *range(30)])
    cache.resize(0)
    assert cache.stored_bytes == 0
    assert not cache.evict_least()


def test_a_smaller_budget_lets_the_least_go_and_a_larger_one_nothing():
    owner = Owner()
    cache = new_cache(owner)
    for first in range(5):
        serve(cache, owner, [first, *range(30)])
    before = cache.stored_bytes
    cache.resize(10_000)
    assert cache.stored_bytes == before
    cache.resize(before // 2)
    assert 0 < cache.stored_bytes <= before // 2
    cache.check()


def test_a_budget_below_what_is_pinned_leaves_that():
    owner = Owner()
    cache = new_cache(owner)
    serve(cache, owner, range(30))
    with cache.acquire(range(30)) as lease:
        cache.resize(0)
        assert cache.statistics().num_checkpoints == 1
        assert lease.state is not None
        cache.check()
    assert cache.stored_bytes == 0, "it goes once nobody holds it"
    cache.check()


@pytest.mark.parametrize("footprint", FOOTPRINTS, ids=["kv", "states alone"])
def test_nothing_fits_an_empty_budget_and_nothing_breaks(footprint):
    owner = Owner()
    cache = new_cache(owner, footprint=footprint, policy=learned())
    cache.resize(0)
    for last in range(3):
        serve(cache, owner, [*range(30), last])
    assert cache.stored_bytes == 0
    cache.resize(1000)
    for last in range(3):
        serve(cache, owner, [*range(30), last])
    assert cache.stored_bytes > 0
    cache.check()


def test_what_is_worth_least_is_given_back_until_nothing_is_left():
    owner = Owner()
    cache = new_cache(owner)
    serve(cache, owner, range(30))
    num = cache.statistics().num_checkpoints
    with cache.acquire(range(30)):
        assert sum(iter(cache.evict_least, False)) == num - 1, "all but the one that is pinned"
    assert cache.evict_least()
    assert not cache.evict_least()
    assert cache.statistics().num_evictions == num
    assert not owner.live


def test_cleared_it_has_learned_all_the_same():
    owner = Owner()
    cache = new_cache(owner)
    serve(cache, owner, range(30))
    cache.clear()
    assert cache.stored_bytes == 0
    assert cache.statistics().num_evictions == 0
    report = serve(cache, owner, range(30))
    assert (report.reused, report.unseen) == (0, 0), "the prompt is known still"
    cache.check()


def test_settled_with_all_intact_everything_stays():
    owner = Owner()
    cache = new_cache(owner)
    lease = cache.acquire(range(30))
    cache.commit(lease, cache.plan(lease), owner.source(cache.footprint))
    num = cache.statistics().num_checkpoints
    assert cache.confirm(lease, lambda payload: True) == 0
    assert cache.statistics().num_checkpoints == num
    assert lease.is_released


def test_settled_what_was_lost_was_never_placed():
    owner = Owner()
    cache = new_cache(owner)
    lease = cache.acquire(range(30))
    cache.commit(lease, cache.plan(lease), owner.source(cache.footprint))
    num = cache.statistics().num_checkpoints
    assert cache.confirm(lease, lambda payload: False) == num
    assert cache.statistics().num_evictions == 0
    assert serve(cache, owner, range(30)).eviction == 0
    cache.check()


def test_what_another_lease_holds_is_left_to_that_one():
    owner = Owner()
    cache = new_cache(owner)
    one = cache.acquire(range(30))
    cache.commit(one, cache.plan(one), owner.source(cache.footprint))
    two = cache.acquire(range(30))
    assert two.resume_position > 0
    num = cache.statistics().num_checkpoints
    assert cache.confirm(one, lambda payload: False) == num - 1
    assert cache.confirm(two, lambda payload: False) == 1
    assert not owner.live


@pytest.mark.parametrize("most", [1, 2])
def test_a_prompt_has_no_more_checkpoints_than_allowed(most):
    owner = Owner()
    cache = new_cache(owner, policy=learned(), capacity_bytes=10_000, max_checkpoints=most)
    for last in range(6):
        assert serve(cache, owner, [*range(60), last]).checkpoints_stored <= most
        assert serve(cache, owner, [last, *range(60)]).checkpoints_stored <= most


def test_captures_that_cost_something_end_where_nobody_returns():
    owner = Owner()
    cache = new_cache(owner, policy=learned(), capacity_bytes=1_000_000, capture_tokens=20)
    stored = [serve(cache, owner, [n, *range(200)]).checkpoints_stored for n in range(60)]
    free = new_cache(Owner(), policy=learned(), capacity_bytes=1_000_000)
    assert stored[0] > 0
    assert sum(stored[30:]) == 0
    assert all(serve(free, owner, [n, *range(200)]).checkpoints_stored for n in range(60))
    # Once somebody does, they pay off again.
    for again in range(60):
        serve(cache, owner, [*range(300, 500), again])
    assert serve(cache, owner, [*range(300, 500), 99]).reused > 150


def test_what_a_capture_costs_now_goes_before_what_the_cache_was_told():
    owner = Owner()
    cache = new_cache(owner, policy=learned(), capacity_bytes=1_000_000, capture_tokens=20)
    for n in range(30):
        serve(cache, owner, [n, *range(200)])
    with cache.acquire([99, *range(200)]) as lease:
        assert cache.plan(lease) == cache.plan(lease, capture_tokens=20) == Placement()
        assert cache.plan(lease, capture_tokens=0) != Placement()


def test_captures_that_cost_something_go_on_where_they_pay_off():
    owner = Owner()
    cache = new_cache(owner, policy=learned(), capacity_bytes=1_000_000, capture_tokens=20)
    reports = [serve(cache, owner, [*range(300, 500), n]) for n in range(20)]
    assert all(report.reused > 150 for report in reports[5:])


def test_a_capture_that_brings_something_is_none():
    with pytest.raises(ConfigurationError, match="capture_tokens=-1; give a whole number of at least 0"):
        new_cache(Owner(), capture_tokens=-1)


def test_no_checkpoints_at_all_is_not_a_bound():
    with pytest.raises(ConfigurationError, match="max_checkpoints=0; give a whole number of at least 1"):
        new_cache(Owner(), max_checkpoints=0)
