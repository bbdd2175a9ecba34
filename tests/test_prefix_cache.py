"""The facade: match, plan, commit, and an account of every token."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.accounting import RequestReport
from milepost.errors import CapacityError, ConfigurationError, InvalidRequestError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import (
    Balanced,
    Dense,
    Junction,
    NoCheckpoints,
    Placement,
    PlacementPolicy,
    PromptTail,
    TailAndJunction,
)
from milepost.policies import CachePolicy, learned
from milepost.policies.base import PromptRecord

GRID = 4
HYBRID = Footprint(checkpoint_bytes=50, kv_bytes_per_token=1)
STATELESS = Footprint(checkpoint_bytes=0, kv_bytes_per_token=1)
PLENTY = 1 << 30


@dataclass(frozen=True)
class Payload:
    """A state that says whose it is."""

    prefix: bytes
    num_bytes: int


class Source:
    def __init__(self, tokens, *, checkpoint_bytes=50, segment_tokens=GRID):
        self.tokens, self.checkpoint_bytes, self.segment_tokens = tokens, checkpoint_bytes, segment_tokens

    def checkpoint(self, position):
        return Payload(bytes(self.tokens[:position]), self.checkpoint_bytes)

    def kv_segments(self, start, end):
        step = self.segment_tokens
        return [bytes(self.tokens[:stop]) for stop in range(start + step, end + 1, step)]


def new_cache(*, capacity_bytes=PLENTY, footprint=HYBRID, policy=None, **options):
    policy = PromptTail() if policy is None else policy
    return HostedCache(
        capacity_bytes=capacity_bytes, footprint=footprint, policy=policy, **{"grid": GRID} | options
    )


def serve(cache: HostedCache, tokens, *, tenant="") -> RequestReport:
    """Run one request as an engine would, checking that what it resumes from is its own."""
    with cache.acquire(tokens, tenant=tenant) as lease:
        segments = lease.resume_position // GRID
        assert lease.kv_segments == [bytes(tokens[: GRID * (i + 1)]) for i in range(segments)]
        if not cache.footprint.is_stateless:
            assert (lease.state is None) == (lease.resume_position == 0)
            assert lease.state is None or lease.state.prefix == bytes(tokens[: lease.resume_position])
        source = Source(tokens, checkpoint_bytes=cache.footprint.checkpoint_bytes)
        report = cache.commit(lease, cache.plan(lease), source)
    cache.check()
    return report


def parts(report: RequestReport) -> tuple[int, ...]:
    return report.reused, report.unseen, report.alignment, report.placement, report.eviction


def shared(left, right) -> int:
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


# Account


policies = st.sampled_from(
    [
        NoCheckpoints,
        PromptTail,
        Junction,
        TailAndJunction,
        lambda: Dense(every=8),
        lambda: Balanced(count=3),
        lambda: CachePolicy(TailAndJunction(), keeps_kv=True),
        learned,
    ]
)
requests = st.lists(
    st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=40), st.sampled_from(["", "b"])), max_size=14
)


@settings(deadline=None)
@given(
    policies, requests, st.integers(58, 300), st.sampled_from([HYBRID, STATELESS]), st.sampled_from([4, 8])
)
def test_every_token_has_one_cause_whatever_is_asked(policy, sequence, capacity, footprint, segment):
    cache = new_cache(capacity_bytes=capacity, footprint=footprint, policy=policy(), segment_tokens=segment)
    reports = []
    for tokens, tenant in sequence:
        with cache.acquire(tokens, tenant=tenant) as lease:
            source = Source(tokens, checkpoint_bytes=footprint.checkpoint_bytes, segment_tokens=segment)
            reports.append(cache.commit(lease, cache.plan(lease), source))
        cache.check()
        held = cache.statistics()
        assert held.checkpoint_bytes + held.kv_bytes <= held.capacity_bytes
        assert min(parts(reports[-1])) >= 0
        assert sum(parts(reports[-1])) == reports[-1].num_tokens == len(tokens)
        assert reports[-1].recomputed >= 1, "the last token is always computed"
    held = cache.statistics()
    assert held.num_requests == len(reports)
    assert (held.num_tokens, held.reused) == (
        sum(r.num_tokens for r in reports),
        sum(r.reused for r in reports),
    )


def test_tokens_that_nobody_asked_before_are_unseen():
    assert parts(serve(new_cache(), range(30))) == (0, 30, 0, 0, 0)


def test_what_lies_behind_the_last_grid_position_is_alignment():
    cache = new_cache()
    serve(cache, range(30))
    assert parts(serve(cache, range(30))) == (28, 0, 2, 0, 0)
    assert parts(serve(cache, range(29))) == (28, 0, 1, 0, 0)
    # The last token is computed in any case, so a prompt on the grid loses a whole step.
    assert parts(serve(cache, range(28))) == (0, 0, 4, 24, 0)


def test_where_no_checkpoint_was_ever_put_placement_is_to_blame():
    cache = new_cache(policy=Dense(every=16))
    serve(cache, range(30))
    assert parts(serve(cache, range(30))) == (16, 0, 2, 12, 0)


def test_where_one_was_dropped_eviction_is_to_blame():
    cache = new_cache(capacity_bytes=100)
    serve(cache, range(30))
    serve(cache, range(100, 140))
    assert parts(serve(cache, range(30))) == (0, 0, 2, 0, 28)


def test_where_the_cache_was_emptied_reset_is_to_blame():
    cache = new_cache(policy=Dense(every=16))
    serve(cache, range(30))
    cache.clear()
    cache.check()
    # A prompt that parts before the position splits the path, and one that is as before puts it back.
    report = serve(cache, [*range(20), 99, 99])
    assert (report.reused, report.reset, report.placement, report.eviction) == (0, 16, 4, 0)
    cache.check()
    report = serve(cache, range(30))
    assert (report.reused, report.reset, report.placement, report.alignment) == (16, 0, 12, 2)
    cache.check()


def test_what_was_evicted_before_the_cache_was_emptied_is_told_apart():
    cache = new_cache(policy=Dense(every=8))
    serve(cache, range(30))
    while cache.statistics().num_checkpoints > 2:
        assert cache.evict_least()
    cache.clear()
    report = serve(cache, range(30))
    assert report.eviction + report.reset == 24
    assert min(report.eviction, report.reset) > 0
    cache.check()


def test_where_the_cache_was_emptied_of_kv_alone_no_state_is_missed():
    cache = new_cache(policy=CachePolicy(Dense(every=16), keeps_kv=True))
    serve(cache, range(30))
    assert cache.statistics().kv_bytes == 28
    cache.clear()
    assert cache.stored_bytes == 0
    report = serve(cache, range(30))
    assert (report.reused, report.reset, report.placement, report.alignment) == (0, 16, 12, 2)


def test_all_causes_at_once_are_told_apart():
    cache = new_cache(policy=Dense(every=8), capacity_bytes=290)
    serve(cache, range(40))  # states at 8, 16, 24, 32 and 40
    with cache.acquire(range(20)) as lease, cache.acquire(range(100, 117)) as large:
        assert lease.resume_position == 16
        cache.commit(large, Placement((4, 8, 12, 16)), Source(range(100, 117)))
    # Only the state at 16 was left; the one at 24 was dropped, none was ever at 28.
    assert parts(serve(cache, [*range(31), 99, 99])) == (16, 2, 3, 4, 8)


def test_statistics_of_a_fresh_cache_are_all_zero():
    held = new_cache().statistics()
    assert held.reused_fraction == 0.0
    assert held.num_requests == held.num_checkpoints == held.kv_bytes == held.history_tokens == 0


# Budget


def test_a_budget_below_one_checkpoint_names_the_least_that_works_and_that_works():
    with pytest.raises(CapacityError, match=r"capacity_bytes=53 .* at least 54 bytes"):
        new_cache(capacity_bytes=53)
    cache = new_cache(capacity_bytes=54)
    assert serve(cache, range(5)).checkpoints_stored == 1
    assert serve(cache, range(5)).reused == 4


def test_a_checkpoint_that_can_never_fit_is_rejected_and_nothing_is_evicted_for_it():
    cache = new_cache(capacity_bytes=60)
    serve(cache, range(5))
    prompt = range(100, 140)  # 40 bytes of KV beside 50 of state
    with cache.acquire(prompt) as lease:
        report = cache.commit(lease, Placement((40,)), Source(prompt))
    assert (report.checkpoints_stored, report.checkpoints_rejected) == (0, 1)
    assert serve(cache, range(5)).reused == 4


def test_of_a_prompt_too_long_for_the_budget_the_deepest_state_that_fits_is_kept():
    cache = new_cache(capacity_bytes=60)
    prompt = range(100, 140)
    assert serve(cache, prompt).checkpoints_stored == 1
    assert serve(cache, prompt).reused == 8


def test_of_a_prompt_too_long_for_the_budget_without_states_the_first_segments_are_kept():
    cache = new_cache(capacity_bytes=30, footprint=Footprint(checkpoint_bytes=0, kv_bytes_per_token=1))
    prompt = range(100, 140)
    serve(cache, prompt)
    assert serve(cache, prompt).reused == 28


def test_a_plan_leaves_room_for_the_kv_that_its_states_need():
    cache = new_cache(policy=Dense(every=8), capacity_bytes=200)
    report = serve(cache, range(64))  # 64 bytes of KV leave room for two states of 50
    assert (report.checkpoints_stored, report.checkpoints_rejected) == (2, 0)
    assert serve(cache, range(64)).reused == 56


def test_history_stays_small_where_kv_is_free():
    cache = HostedCache(
        capacity_bytes=4 << 30,
        footprint=Footprint(checkpoint_bytes=1 << 20, kv_bytes_per_token=0),
        policy=PromptTail(),
        grid=GRID,
    )
    assert cache._store._history_keys * 4 <= (4 << 30) / 64


def test_a_request_without_states_that_comes_to_nothing_leaves_nothing_behind():
    cache = new_cache(footprint=Footprint(checkpoint_bytes=0, kv_bytes_per_token=1))
    serve(cache, range(40))
    before = cache.statistics()
    with cache.acquire(range(20)):
        pass
    assert cache.statistics() == before
    cache.check()


def test_what_a_request_is_resuming_from_is_not_evicted_by_another():
    cache = new_cache(capacity_bytes=100)
    serve(cache, range(30))
    with cache.acquire(range(30)) as lease:
        assert serve(cache, range(100, 140)).checkpoints_rejected == 1
        assert lease.resume_position == 28
    assert serve(cache, range(100, 140)).checkpoints_stored == 1, "released, it has to go"
    assert serve(cache, range(30)).reused == 0


def test_two_leases_pin_until_the_second_is_released():
    cache = new_cache(capacity_bytes=100)
    serve(cache, range(30))
    first, second = cache.acquire(range(30)), cache.acquire(range(30))
    first.release()
    first.release()
    assert serve(cache, range(100, 140)).checkpoints_rejected == 1
    second.release()
    assert serve(cache, range(100, 140)).checkpoints_stored == 1


def test_what_a_request_has_just_stored_is_not_evicted_for_its_next_checkpoint():
    cache = new_cache(policy=Dense(every=8), capacity_bytes=100)
    with cache.acquire(range(17)) as lease:
        report = cache.commit(lease, Placement((8, 16)), Source(range(17)))
    assert (report.checkpoints_stored, report.checkpoints_rejected) == (1, 1)
    assert cache.statistics().num_evictions == 0


def test_what_was_resumed_lately_outlives_what_was_not():
    cache = new_cache(capacity_bytes=2 * 54)
    for first in (1, 2, 1, 3):
        serve(cache, [first] * 5)
    assert serve(cache, [1] * 5).reused == 4
    assert serve(cache, [2] * 5).eviction == 4


def test_history_is_bounded_by_the_option():
    cache = new_cache(policy=NoCheckpoints(), history_tokens=50)
    for start in range(0, 1000, 20):
        serve(cache, range(start, start + 20) if start < 200 else [start % 256] * 20)
    assert cache.statistics().history_tokens <= 50


# Sharing


def test_tenants_share_nothing_not_even_what_was_seen():
    cache = new_cache()
    serve(cache, range(30), tenant="a")
    assert parts(serve(cache, range(30), tenant="b")) == (0, 30, 0, 0, 0)
    assert serve(cache, range(30), tenant="a").reused == 28


def test_interleaved_requests_for_one_prompt_store_it_once():
    cache = new_cache()
    tokens = range(30)
    first, second = cache.acquire(tokens), cache.acquire(tokens)
    for lease in (first, second):
        cache.commit(lease, cache.plan(lease), Source(tokens))
        lease.release()
    cache.check()
    assert cache.statistics().num_checkpoints == 1
    assert cache.statistics().kv_bytes == 28


@settings(deadline=None, derandomize=True)
@given(
    policies,
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 1), min_size=1, max_size=40)), max_size=16),
    st.integers(58, 400),
)
def test_requests_that_overlap_in_time_are_each_accounted_for(policy, sequence, capacity):
    """Three engines at once: each commits its request when it asks the next, in any order among them."""
    cache = new_cache(capacity_bytes=capacity, policy=policy())
    running = {}
    reports = []
    committed = []
    for engine, tokens in [*sequence, (0, [0]), (1, [0]), (2, [0])]:
        if engine in running:
            asked, lease = running.pop(engine)
            reports.append(cache.commit(lease, cache.plan(lease), Source(asked)))
            cache.check()
            lease.release()
            committed.append(asked)
        cache.check()
        lease = cache.acquire(tokens)
        assert lease.request.overlap_depth == max((shared(tokens, other) for other in committed), default=0)
        assert lease.state is None or lease.state.prefix == bytes(tokens[: lease.resume_position])
        running[engine] = tokens, lease
    for report in reports:
        assert min(parts(report)) >= 0
        assert sum(parts(report)) == report.num_tokens
    assert cache.statistics().num_tokens == sum(map(len, committed))


def test_a_discarded_checkpoint_is_gone_and_discarding_twice_is_harmless():
    cache = new_cache()
    serve(cache, range(30))
    lease = cache.acquire(range(30))
    lease.discard()
    lease.discard()
    cache.check()
    assert cache.statistics().num_checkpoints == 0
    assert parts(serve(cache, range(30))) == (0, 0, 2, 0, 28)


def test_what_another_request_holds_is_not_discarded_but_can_be_passed_by():
    cache = new_cache()
    serve(cache, range(30))
    with cache.acquire(range(30)):
        lease = cache.acquire(range(30))
        lease.discard()
        assert cache.acquire(range(30)).resume_position == 28
        with cache.acquire(range(30), resume_limit=27) as cold:
            assert cold.resume_position == 0
            assert cold.state is None
            assert list(cold.kv_segments) == []


# Attention-only models


def test_without_states_every_segment_boundary_can_be_resumed_from():
    cache = new_cache(footprint=STATELESS)
    serve(cache, range(30))
    for depth in (30, 22, 9, 5):
        report = serve(cache, [*range(depth), 99])
        assert report.reused == depth // GRID * GRID
        assert parts(report) == (depth // GRID * GRID, 1, depth % GRID, 0, 0)
    assert cache.statistics().checkpoint_bytes == 0
    assert cache.statistics().kv_bytes <= 28 + 4 * GRID


def test_without_states_the_policy_none_still_means_none():
    cache = new_cache(footprint=STATELESS, policy=NoCheckpoints())
    assert serve(cache, range(30)).checkpoints_stored == 0
    assert serve(cache, range(30)).reused == cache.statistics().kv_bytes == 0


def test_without_states_a_budget_of_one_segment_works():
    with pytest.raises(CapacityError, match="at least 4 bytes"):
        new_cache(footprint=STATELESS, capacity_bytes=3)
    cache = new_cache(footprint=STATELESS, capacity_bytes=4)
    serve(cache, range(5))
    assert serve(cache, range(5)).reused == 4


def test_without_states_short_prompts_leave_nothing_that_nobody_can_evict():
    cache = new_cache(footprint=STATELESS, segment_tokens=16, history_tokens=100)
    for first in range(50):
        with cache.acquire([first] * 7) as lease:
            cache.commit(lease, cache.plan(lease), Source([first] * 7, segment_tokens=16))
        cache.check()
    assert cache.statistics().num_checkpoints == 0
    assert cache.statistics().history_tokens <= 100


# Misuse


@pytest.mark.parametrize("positions", [(6,), (4, 32), (28,), (24,), (8, 10)])
def test_a_placement_off_the_rules_is_refused_and_changes_nothing(positions):
    cache = new_cache()
    serve(cache, range(30))
    before = cache.statistics()
    with cache.acquire(range(31)) as lease, pytest.raises(InvalidRequestError, match="on the grid of 4"):
        cache.commit(lease, Placement(positions), Source(range(31)))
    cache.check()
    assert cache.statistics() == before
    assert serve(cache, range(31)).reused == 28


def test_a_lease_is_committed_once_while_held_where_it_was_acquired():
    cache, other = new_cache(), new_cache()
    with cache.acquire(range(30)) as lease:
        with pytest.raises(InvalidRequestError, match="another cache"):
            other.commit(lease, Placement(), Source(range(30)))
        cache.commit(lease, Placement((28,)), Source(range(30)))
        with pytest.raises(InvalidRequestError, match="committed already"):
            cache.commit(lease, Placement(), Source(range(30)))
    released = cache.acquire(range(30))
    released.release()
    with pytest.raises(InvalidRequestError, match="released"):
        cache.commit(released, Placement(), Source(range(30)))
    assert cache.statistics().num_requests == 1


@pytest.mark.parametrize("bad", [[], [-1], [[1]], ["a"]])
def test_a_malformed_prompt_leaves_the_cache_as_it_was(bad):
    cache = new_cache()
    serve(cache, range(30))
    before = cache.statistics()
    with pytest.raises(InvalidRequestError):
        cache.acquire(bad)
    assert cache.statistics() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"grid": 0}, "grid=0"),
        ({"segment_tokens": 6}, "whole number of grid steps"),
        ({"segment_tokens": 0}, "segment_tokens=0"),
        ({"history_tokens": -1}, "history_tokens=-1"),
        ({"capacity_bytes": -5}, "bytes=-5; give a whole number of at least 0"),
    ],
)
def test_an_option_outside_its_rule_is_named(options, says):
    with pytest.raises(ConfigurationError, match=says):
        new_cache(**options)


def test_a_misspelt_option_is_a_type_error():
    with pytest.raises(TypeError, match="capacity_byte"):
        new_cache(capacity_byte=5)


class Exploding(PlacementPolicy):
    """A policy with a defect of its own."""

    def place(self, request):
        raise RuntimeError("defect")


class ExplodingSource(Source):
    """Runs out of memory at the second state."""

    def checkpoint(self, position):
        if position > 8:
            raise MemoryError
        return super().checkpoint(position)


def test_a_policy_that_raises_leaves_the_cache_whole():
    cache = new_cache(policy=Exploding())
    with cache.acquire(range(30)) as lease, pytest.raises(RuntimeError, match="defect"):
        cache.plan(lease)
    cache.check()


def test_a_source_that_raises_leaves_the_cache_as_it_was():
    cache = new_cache(policy=Dense(every=8))
    with cache.acquire(range(30)) as lease, pytest.raises(MemoryError):
        cache.commit(lease, cache.plan(lease), ExplodingSource(range(30)))
    cache.check()
    assert cache.statistics().num_requests == cache.statistics().num_checkpoints == 0
    assert parts(serve(cache, range(30))) == (0, 30, 0, 0, 0)


def test_reports_are_immutable():
    report = serve(new_cache(), range(30))
    with pytest.raises(AttributeError):
        report.reused = 5
    assert replace(report, reused=5).reused == 5


def test_planning_and_acquiring_read_only():
    cache = new_cache(policy=learned())
    for tokens in (range(30), range(30), [*range(20), 99]):
        serve(cache, tokens)
    before = cache.statistics()
    with cache.acquire([*range(25), 77]) as lease:
        assert cache.plan(lease) == cache.plan(lease)
    assert cache.statistics() == before
    assert np.array_equal(lease.tokens, [*range(25), 77])


def test_what_the_engine_captures_in_any_case_is_part_of_the_plan():
    cache = new_cache(policy=Dense(every=8))
    with cache.acquire(range(30)) as lease:
        assert cache.plan(lease).positions == (8, 16, 24)
        assert cache.plan(lease, given_positions=(12, 16, 28)).positions == (8, 12, 16, 24, 28)


def test_a_policy_that_tunes_itself_is_given_what_replays_prompts_on_an_empty_cache_of_the_same_make():
    given = []
    cache = new_cache(policy=CachePolicy(PromptTail(), attach=given.append))
    serve(cache, range(30))
    (replay,) = given
    keys = np.arange(30, dtype=np.int32).tobytes()
    once = [PromptRecord(keys=keys, num_tokens=30, tenant="a")]
    other = [PromptRecord(keys=keys, num_tokens=30, tenant="b")]
    assert replay(CachePolicy(PromptTail()), once) == 0, "it starts empty, whatever the cache holds"
    assert replay(CachePolicy(PromptTail()), once + other) == 0
    assert replay(CachePolicy(PromptTail()), once + other + once) == 28
    assert replay(CachePolicy(NoCheckpoints()), once * 3) == 0, "under the policy that it is asked about"
    assert cache.statistics().num_requests == 1
