"""What a source hands out is checked before anything is stored: whatever is wrong with it changes nothing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import InvalidRequestError
from milepost.footprint import Footprint, KVWindow, MeasuredBytes
from milepost.hosted_cache import HostedCache
from milepost.placement import Balanced, Dense, Placement, PlacementPolicy, PromptTail, TailAndJunction
from milepost.policies import CachePolicy, learned

GRID = 4
SEGMENT = 8
HYBRID = Footprint(checkpoint_bytes=80, kv_bytes_per_token=2)
STATELESS = Footprint(checkpoint_bytes=0, kv_bytes_per_token=2)
RECURRENT = Footprint(checkpoint_bytes=80, kv_bytes_per_token=0)


@dataclass(frozen=True, eq=False)
class Payload:
    num_bytes: object


class NoSize:
    pass


class Source:
    """An honest source, which counts what it was asked."""

    def __init__(self, footprint):
        self.footprint = footprint
        self.num_asked = 0

    def checkpoint(self, position):
        self.num_asked += 1
        return Payload(self.footprint.checkpoint_bytes_at(position))

    def kv_segments(self, start, end):
        self.num_asked += 1
        return [Payload(SEGMENT * self.footprint.kv_bytes_per_token) for _ in range(start, end, SEGMENT)]


class Misbehaving(Source):
    """Hands out something else the ``at``-th time that it is asked."""

    def __init__(self, footprint, *, at, how):
        super().__init__(footprint)
        self.at, self.how = at, how
        self.first_state = None
        self.did_misbehave = False

    def checkpoint(self, position):
        state = super().checkpoint(position)
        if self.num_asked - 1 != self.at:
            self.first_state = self.first_state or state
            return state
        return self._wrong(WRONG_STATES, state)

    def kv_segments(self, start, end):
        segments = super().kv_segments(start, end)
        return segments if self.num_asked - 1 != self.at else self._wrong(WRONG_SEGMENTS, segments)

    def _wrong(self, kinds, honest):
        wrong = kinds[self.how % len(kinds)](self, honest)
        self.did_misbehave = wrong is not honest
        return wrong


def raising(error):
    def act(source, _):
        source.did_misbehave = True
        raise error

    return act


WRONG_STATES = [
    lambda source, state: None,
    lambda source, state: NoSize(),
    lambda source, state: Payload(None),
    lambda source, state: Payload(-1),
    lambda source, state: Payload(79.5),
    lambda source, state: Payload(True),
    lambda source, state: Payload(math.nan),
    lambda source, state: Payload("80"),
    # Inside a segment, the segment's KV may come on top.
    lambda source, state: Payload(80 + 11 + 2 * SEGMENT),
    lambda source, state: Payload(80 - 11),
    lambda source, state: Payload(0),
    # The very object that it handed out before, which it computes on in.
    lambda source, state: source.first_state or state,
    raising(MemoryError()),
    raising(KeyError("lost")),
]
WRONG_SEGMENTS = [
    lambda source, segments: None,
    lambda source, segments: segments[:-1],
    lambda source, segments: [*segments, Payload(2 * SEGMENT)],
    lambda source, segments: segments[0],
    lambda source, segments: "x" * len(segments),
    lambda source, segments: dict.fromkeys(segments),
    lambda source, segments: [None, *segments[1:]] if len(segments) > 1 else segments,
    lambda source, segments: segments[:1] * len(segments) if len(segments) > 1 else segments,
    lambda source, segments: [Payload(100), *segments[1:]],
    lambda source, segments: [Payload(False), *segments[1:]],
    lambda source, segments: (Payload(2 * SEGMENT) for _ in iter(int, 1)),
    raising(MemoryError()),
]
policies = st.sampled_from(
    [
        PromptTail,
        TailAndJunction,
        lambda: Dense(every=8),
        lambda: Balanced(count=3),
        lambda: CachePolicy(TailAndJunction(), keeps_kv=True),
        lambda: CachePolicy(TailAndJunction(), keeps_kv=True, state_share=0.6),
        learned,
    ]
)
footprints = st.sampled_from([HYBRID, STATELESS, RECURRENT])
prompts = st.lists(st.integers(0, 1), min_size=1, max_size=40)


def new_cache(footprint, policy, *, capacity=400, **options) -> HostedCache:
    return HostedCache(
        capacity_bytes=capacity,
        footprint=footprint,
        policy=policy,
        grid=GRID,
        segment_tokens=SEGMENT,
        **options,
    )


def serve(cache, tokens, source=None):
    with cache.acquire(tokens) as lease:
        return cache.commit(lease, cache.plan(lease), source or Source(cache.footprint))


def contents(cache) -> list:
    """Everything that the store holds and says of itself, each payload by its identity."""
    store = cache._store
    everything = [cache.statistics(), store.tree.num_keys, store.tree.version, len(store.queue)]
    everything.append(sorted(each.serial for each in store.queue.pinned))
    lessons = cache.policy.lessons
    everything.append(None if lessons is None else repr(lessons.export()))
    for node in store.tree.nodes():
        everything.append((node.start, node.end, node.data, node.evicted[:], node.num_kv_reached))
        everything.append((id(node.owner), node.num_live_children, [id(each) for each in node.kv]))
        everything.append((node.owner.num_tokens, node.owner.hazard_class, node.owner.passed_tokens))
        everything.append(
            None if node.branch_point is None else (id(node.branch_point), node.branch_point.visits)
        )
        everything += [
            (c.position, id(c.payload), c.num_bytes, c.serial, c.last_used, c.num_pins, c.cost, c.is_kv_only)
            for c in node.checkpoints
        ]
    return everything


@given(policies, footprints, st.lists(prompts, max_size=6), prompts, st.integers(0, 5), st.integers(0, 30))
def test_a_source_that_misbehaves_anywhere_changes_nothing(policy, footprint, before, tokens, at, how):
    cache = new_cache(footprint, policy())
    for earlier in before:
        serve(cache, earlier)
    source = Misbehaving(footprint, at=at, how=how)
    with cache.acquire(tokens) as lease:
        placement, held = cache.plan(lease), lease.pinned
        found = contents(cache)
        try:
            cache.commit(lease, placement, source)
        except (InvalidRequestError, MemoryError, KeyError):
            assert source.did_misbehave
            assert contents(cache) == found
            assert lease.pinned == held
            assert not lease.is_committed
            # The lease is as good as before: an honest source can follow.
            cache.commit(lease, placement, Source(footprint))
        else:
            assert not source.did_misbehave, "something wrong was stored"
        cache.check()
    cache.check()


@given(
    policies,
    footprints,
    st.lists(prompts, max_size=4),
    prompts,
    st.integers(1, 6),
    st.integers(0, 2),
    st.integers(0, 30),
)
def test_an_answer_that_is_refused_leaves_no_trace(policy, footprint, before, tokens, num_steps, at, how):
    cache = new_cache(footprint, policy())
    for earlier in before:
        serve(cache, earlier)
    with cache.acquire(tokens) as lease:
        cache.commit(lease, cache.plan(lease), Source(footprint))
    end = -(-len(tokens) // GRID) * GRID + num_steps * GRID
    answered = [*tokens, *[2] * (end - len(tokens))]
    source, found = Misbehaving(footprint, at=at, how=how), contents(cache)
    try:
        cache.extend(lease, answered, source)
    except (InvalidRequestError, MemoryError, KeyError):
        assert source.did_misbehave
        assert contents(cache) == found
        cache.extend(lease, answered, Source(footprint))
    else:
        assert not source.did_misbehave, "something wrong was stored"
    assert contents(cache) != found
    cache.check()


@pytest.mark.parametrize("bad", [None, 7, [Payload(80)], type("Half", (), {"checkpoint": print})()])
@pytest.mark.parametrize(
    "policy", [Dense(every=4), PromptTail(), learned()], ids=["dense", "tail", "learned"]
)
def test_an_answer_without_a_source_leaves_no_trace_whether_or_not_it_would_be_stored(policy, bad):
    cache = new_cache(HYBRID, policy)
    with cache.acquire([0] * 10) as lease:
        cache.commit(lease, cache.plan(lease), Source(HYBRID))
    found = contents(cache)
    with pytest.raises(InvalidRequestError, match="checkpoint and kv_segments"):
        cache.extend(lease, [0] * 20, bad)
    assert contents(cache) == found


def test_an_answer_that_the_policy_fails_to_place_leaves_no_trace():
    class Fails(PlacementPolicy):
        def place(self, request):
            if request.num_tokens > 10:
                raise RuntimeError("defect")
            return Placement((8,))

    cache = new_cache(HYBRID, Fails())
    with cache.acquire([0] * 10) as lease:
        cache.commit(lease, cache.plan(lease), Source(HYBRID))
    found = contents(cache)
    with pytest.raises(RuntimeError, match="defect"):
        cache.extend(lease, [0] * 20, Source(HYBRID))
    assert contents(cache) == found


@pytest.mark.parametrize("footprint", [HYBRID, RECURRENT], ids=["hybrid", "recurrent"])
@pytest.mark.parametrize(
    "meddled", [[0] * 16, [0] * 20, [0] * 12 + [3] * 12], ids=["grown", "same", "parted"]
)
def test_a_source_that_serves_others_while_an_answer_is_stored_leaves_the_cache_whole(footprint, meddled):
    handed_out, dropped = [], []
    cache = new_cache(footprint, Dense(every=4), capacity=2_000, on_drop=dropped.extend)

    class Meddler(Source):
        def checkpoint(self, position):
            serve(cache, meddled)
            handed_out.append(super().checkpoint(position))
            return handed_out[-1]

    with cache.acquire([0] * 10) as lease:
        cache.commit(lease, cache.plan(lease), Source(footprint))
    cache.extend(lease, [0] * 20, Meddler(footprint))
    cache.check()
    stored = [c.payload for node in cache._store.tree.nodes() for c in node.checkpoints]
    assert len(handed_out) == 1
    assert (handed_out[0] in stored) != (handed_out[0] in dropped)


def test_every_kind_of_misbehaviour_is_refused_before_the_first_eviction():
    for kinds, at in ((WRONG_STATES, 1), (WRONG_SEGMENTS, 3)):
        for how in range(len(kinds)):
            cache = new_cache(HYBRID, Dense(every=8), capacity=300)
            serve(cache, [1] * 16)
            found = contents(cache)
            source = Misbehaving(HYBRID, at=at, how=how)
            with (
                cache.acquire([0] * 24) as lease,
                pytest.raises((InvalidRequestError, MemoryError, KeyError)),
            ):
                cache.commit(lease, Placement((8, 16, 24)), source)
            assert source.did_misbehave
            # The lease was released, which pins nothing of what was stored.
            assert contents(cache) == found


@given(policies, footprints, st.lists(prompts, min_size=1, max_size=8), st.integers(0, 4), st.integers(0, 30))
def test_what_was_handed_out_in_vain_is_given_back_to_its_owner(policy, footprint, sequence, at, how):
    given_back = []
    cache = new_cache(footprint, policy(), on_drop=given_back.extend)

    class Recording(Misbehaving):
        handed_out = ()

        def checkpoint(self, position):
            state = super().checkpoint(position)
            self.handed_out = (*self.handed_out, state)
            return state

        def kv_segments(self, start, end):
            segments = super().kv_segments(start, end)
            return self.recorded(segments) if isinstance(segments, Iterator) else self.noted(segments)

        def noted(self, segments):
            self.handed_out = (*self.handed_out, *segments) if isinstance(segments, list) else self.handed_out
            return segments

        def recorded(self, segments):
            """What comes out one by one is handed out only as far as it is taken."""
            for segment in segments:
                self.handed_out = (*self.handed_out, segment)
                yield segment

    for tokens in sequence[:-1]:
        serve(cache, tokens)
    given_back.clear()
    source = Recording(footprint, at=at, how=how)
    with cache.acquire(sequence[-1]) as lease:
        try:
            cache.commit(lease, cache.plan(lease), source)
        except (InvalidRequestError, MemoryError, KeyError):
            assert {id(p) for p in source.handed_out if p is not None} == {
                id(p) for p in given_back if p is not None
            }


def test_nothing_is_asked_for_that_is_stored_already():
    cache = new_cache(HYBRID, Dense(every=8), capacity=10_000)
    tokens = list(range(30))
    serve(cache, tokens)
    with cache.acquire(tokens) as lease:
        source = Source(HYBRID)
        report = cache.commit(lease, Placement((28,)), source)
        # The last segment has its state inside, so its KV is in the state.
        assert (report.checkpoints_stored, source.num_asked) == (1, 1)
    again = cache.acquire(tokens)
    other = cache.acquire(tokens)
    for lease in (again, other):
        source = Source(HYBRID)
        cache.commit(lease, Placement(()), source)
        assert source.num_asked == 0


def test_interleaved_requests_ask_only_for_what_the_first_has_not_stored():
    cache = new_cache(HYBRID, Dense(every=8), capacity=10_000)
    first, second = cache.acquire(range(30)), cache.acquire(range(30))
    placement = cache.plan(second)
    cache.commit(first, cache.plan(first), Source(HYBRID))
    source = Source(HYBRID)
    assert cache.commit(second, placement, source).checkpoints_stored == len(placement.positions)
    assert source.num_asked == 0


@pytest.mark.parametrize(
    ("footprint", "position", "sizes", "refused"),
    [
        (HYBRID, 8, (70, 80, np.int32(85), 90, 80.0), (69, 91, 0, np.True_)),
        # Inside a segment, the KV since its start may be in the state.
        (HYBRID, 12, (70, 80, 88, 106), (69, 107)),
        # Before the window is full, the state is smaller; an engine may hold the whole window all the same.
        (
            Footprint(checkpoint_bytes=80, kv_bytes_per_token=2, windows=(KVWindow(16, 4),)),
            8,
            (38, 48, 80, 90),
            (37, 91),
        ),
        # What was measured after 16 and 32 tokens says nothing of 8.
        (
            Footprint.from_measurements([MeasuredBytes(16, 80, 32), MeasuredBytes(32, 80, 64)]),
            8,
            (1, 40, 80, 90),
            (91, -1),
        ),
        (
            Footprint.from_measurements([MeasuredBytes(16, 80, 32), MeasuredBytes(32, 80, 64)]),
            16,
            (70, 80, 90),
            (69, 91),
        ),
    ],
)
def test_a_state_weighs_what_the_footprint_says_to_an_eighth(footprint, position, sizes, refused):
    class Sized(Source):
        size = None

        def checkpoint(self, position):
            return Payload(self.size)

    for size in (*sizes, *refused):
        cache = new_cache(footprint, PromptTail(), capacity=10_000)
        source = Sized(footprint)
        source.size = size
        with cache.acquire(range(30)) as lease:
            if size in sizes:
                assert cache.commit(lease, Placement((position,)), source).checkpoints_stored == 1
                assert cache.statistics().checkpoint_bytes == int(size)
                assert type(cache.statistics().checkpoint_bytes) is int
            else:
                with pytest.raises(InvalidRequestError, match=r"num_bytes|by the footprint"):
                    cache.commit(lease, Placement((position,)), source)


def test_what_was_resumed_from_is_not_taken_for_another_state():
    cache = new_cache(HYBRID, PromptTail())
    serve(cache, range(9))
    with cache.acquire(range(17)) as lease:

        class Same(Source):
            def checkpoint(self, position):
                return lease.state

        with pytest.raises(InvalidRequestError, match="hand out a copy for each position"):
            cache.commit(lease, Placement((16,)), Same(HYBRID))


def test_kv_that_making_room_takes_from_the_path_is_put_back_without_asking_again():
    dropped = []
    cache = new_cache(HYBRID, PromptTail(), capacity=80 + 48 + 16, on_drop=dropped.extend)
    document = list(range(24))
    serve(cache, [*document, 1])
    kept = [payload for node in cache._store.tree.nodes() for payload in node.kv]
    source = Source(HYBRID)
    with cache.acquire([*document[:16], 99, 99]) as lease:
        assert lease.resume_position == 0
        # Only the deeper state on the other branch can go, and the KV of these 16 tokens would go with it.
        cache.commit(lease, Placement((16,)), source)
    assert source.num_asked == 1
    assert [payload for node in cache._store.tree.nodes() for payload in node.kv] == kept[:2]
    assert len(dropped) == 2, "the state and the third segment, and not what was put back"
    cache.check()


@pytest.mark.parametrize("bad", [None, 7, object(), [Payload(80)]])
def test_what_is_no_source_is_refused(bad):
    cache = new_cache(HYBRID, PromptTail())
    with (
        cache.acquire(range(9)) as lease,
        pytest.raises(InvalidRequestError, match="checkpoint and kv_segments"),
    ):
        cache.commit(lease, cache.plan(lease), bad)
    assert cache.statistics().num_requests == 0


def test_a_policy_that_fails_to_learn_leaves_the_request_committed_and_the_cache_whole():
    class Forgetful(PlacementPolicy):
        def place(self, request):
            return Placement((8,))

        def observe(self, request):
            raise RuntimeError("defect")

    cache = new_cache(HYBRID, Forgetful())
    with cache.acquire(range(9)) as lease:
        with pytest.raises(RuntimeError, match="defect"):
            cache.commit(lease, cache.plan(lease), Source(HYBRID))
        assert lease.is_committed
    cache.check()
    assert cache.statistics().num_requests == cache.statistics().num_checkpoints == 1


@pytest.mark.parametrize(
    "footprint", [HYBRID, STATELESS, RECURRENT], ids=["hybrid", "stateless", "recurrent"]
)
@pytest.mark.parametrize("act", ["release", "commit"])
def test_a_source_that_uses_up_the_lease_it_is_asked_for_is_refused(footprint, act):
    dropped = []
    cache = new_cache(footprint, PromptTail(), capacity=800, on_drop=dropped.extend)
    serve(cache, [1] * 40)
    lease = cache.acquire([1] * 20 + [2] * 21)
    placement = cache.plan(lease)
    requests_before = cache.statistics().num_requests

    class Meddler(Source):
        def __init__(self):
            super().__init__(footprint)
            self.given = []

        def meddle(self):
            if not (lease.is_released or lease.is_committed):
                lease.release() if act == "release" else cache.commit(lease, placement, Source(footprint))

        def checkpoint(self, position):
            self.meddle()
            self.given.append(super().checkpoint(position))
            return self.given[-1]

        def kv_segments(self, start, end):
            self.meddle()
            self.given += (segments := super().kv_segments(start, end))
            return segments

    source = Meddler()
    with pytest.raises(InvalidRequestError, match="released" if act == "release" else "committed already"):
        cache.commit(lease, placement, source)
    assert source.given
    assert set(source.given) <= set(dropped), "what was handed out in vain is reported"
    assert cache.statistics().num_requests == requests_before + (act == "commit")
    lease.release()
    cache.check()


def test_kv_that_is_not_computed_yet_is_not_asked_for():
    """A policy that keeps KV to a prompt's end, and a prompt whose last piece somebody else computes."""

    class Half(Source):
        def kv_segments(self, start, end):
            assert end <= 16
            return super().kv_segments(start, end)

    cache = HostedCache(
        capacity_bytes=10_000,
        footprint=HYBRID,
        policy=CachePolicy(PromptTail(), keeps_kv=True),
        grid=GRID,
        segment_tokens=SEGMENT,
    )
    with cache.acquire(np.arange(24)) as lease:
        for wrong in (25, -1, "16"):
            with pytest.raises(InvalidRequestError, match="kv_tokens"):
                cache.commit(lease, Placement(), Half(HYBRID), kv_tokens=wrong)
        cache.commit(lease, Placement(), Half(HYBRID), kv_tokens=16)
    assert cache.stored_bytes == 16 * HYBRID.kv_bytes_per_token
    cache.check()
