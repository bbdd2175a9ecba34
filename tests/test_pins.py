"""What a client pins is captured, and stays for the time asked, within half of the budget."""

from dataclasses import dataclass

import pytest

from milepost.errors import CacheCorruptionError, InvalidRequestError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.pins import Pin, as_pins
from milepost.placement import Dense, NoCheckpoints, Placement, PromptTail
from milepost.policies import learned, parse_policy

GRID = 4
HYBRID = Footprint(checkpoint_bytes=100, kv_bytes_per_token=1)
STATELESS = Footprint(checkpoint_bytes=0, kv_bytes_per_token=1)


@dataclass(frozen=True, eq=False)
class Payload:
    num_bytes: int


class Source:
    def __init__(self, footprint=HYBRID):
        self.footprint = footprint

    def checkpoint(self, position):
        return Payload(self.footprint.checkpoint_bytes)

    def kv_segments(self, start, end):
        return [Payload(GRID * self.footprint.kv_bytes_per_token) for _ in range(start, end, GRID)]


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def new_cache(capacity=1000, *, policy=None, footprint=HYBRID, clock=None):
    return HostedCache(
        capacity_bytes=capacity,
        footprint=footprint,
        policy=PromptTail() if policy is None else policy,
        grid=GRID,
        clock=clock or Time(),
    )


def serve(cache, tokens, *, pins=(), tenant=""):
    with cache.acquire(tokens, pins=pins, tenant=tenant) as lease:
        report = cache.commit(lease, cache.plan(lease), Source(cache.footprint))
    cache.check()
    return report


def prompt(number, length=40):
    return [number] * length


def resumes_at(cache, tokens):
    with cache.acquire(tokens) as lease:
        return lease.resume_position


def fill(cache, count=30, *, start=100):
    for number in range(start, start + count):
        serve(cache, prompt(number))


def test_a_pin_is_captured_where_the_policy_would_not():
    cache = new_cache()
    with cache.acquire(prompt(1), pins=[Pin(18, 60)]) as lease:
        assert cache.plan(lease).positions == (16, 36)
    report = serve(cache, prompt(1), pins=[(18, 60)])
    assert (report.checkpoints_stored, report.checkpoints_pinned, report.checkpoints_unpinned) == (2, 1, 0)


@pytest.mark.parametrize("policy", ["tail", "learned", "dense:8", "balanced:2"])
def test_a_pin_outlives_traffic_that_sweeps_everything_else_out(policy):
    time = Time()
    cache = new_cache(policy=parse_policy(policy), clock=time)
    serve(cache, prompt(1), pins=[(20, 60)])
    serve(cache, prompt(2), pins=[(20, 10)])
    time.now = 30.0
    fill(cache)
    assert resumes_at(cache, prompt(1)) >= 20
    assert resumes_at(cache, prompt(2)) == 0, "its time was over"
    time.now = 61.0
    assert resumes_at(cache, prompt(1)) >= 20, "nobody needed the room yet"
    fill(cache, start=200)
    assert resumes_at(cache, prompt(1)) == 0


def test_without_a_pin_the_same_traffic_sweeps_it_out():
    cache = new_cache()
    serve(cache, prompt(1))
    fill(cache)
    assert resumes_at(cache, prompt(1)) == 0


def test_asking_again_prolongs_a_pin_and_never_shortens_it():
    time = Time()
    cache = new_cache(clock=time)
    serve(cache, prompt(1), pins=[(20, 100)])
    serve(cache, prompt(1), pins=[(20, 5)])
    time.now = 50.0
    fill(cache)
    assert resumes_at(cache, prompt(1)) >= 20
    serve(cache, prompt(1), pins=[(20, 100)])
    time.now = 120.0
    fill(cache)
    assert resumes_at(cache, prompt(1)) >= 20


def test_pins_take_half_of_the_budget_and_the_oldest_goes_first():
    cache = new_cache(1000)
    reports = [serve(cache, prompt(number), pins=[(40, 1e6)]) for number in range(1, 6)]
    # A pin takes 100 bytes and the KV of 40 tokens: three fit into 500.
    assert [each.checkpoints_pinned for each in reports] == [1] * 5
    assert [each.checkpoints_unpinned for each in reports] == [0, 0, 0, 1, 1]
    fill(cache)
    found = [resumes_at(cache, prompt(number, 41)) for number in range(1, 6)]
    assert found == [0, 0, 40, 40, 40]
    assert cache.statistics().checkpoints_unpinned == 2


def test_a_pin_that_takes_more_than_half_by_itself_is_not_kept_and_the_report_says_so():
    cache = new_cache(260)
    report = serve(cache, prompt(1), pins=[(40, 60)])
    assert (report.checkpoints_stored, report.checkpoints_pinned, report.checkpoints_unpinned) == (2, 0, 1)


def test_a_pin_before_what_is_resumed_from_is_kept_where_something_is_there_and_costs_nothing_else():
    cache = new_cache()
    serve(cache, prompt(1))
    report = serve(cache, prompt(1), pins=[(8, 60), (36, 60)])
    assert (report.reused, report.checkpoints_pinned) == (36, 1)


def test_a_smaller_budget_lets_go_of_pins_too():
    cache = new_cache(1000)
    for number in range(1, 4):
        serve(cache, prompt(number), pins=[(40, 1e6)])
    cache.resize(300)
    cache.check()
    assert cache.stored_bytes <= 300
    cache.resize(140)
    cache.check()


def test_clearing_and_forgetting_take_pins_with_them():
    cache = new_cache()
    serve(cache, prompt(1), pins=[(40, 1e6)])
    cache.clear()
    cache.check()
    assert cache.stored_bytes == 0
    serve(cache, prompt(1), pins=[(40, 1e6)], tenant="gone")
    assert cache.forget_tenants(lambda name: name == "gone")
    cache.check()
    assert cache.stored_bytes == 0


def test_a_pin_that_is_not_trusted_goes_at_once():
    cache = new_cache()
    serve(cache, prompt(1), pins=[(40, 1e6)])
    lease = cache.acquire(prompt(1, 50))
    assert lease.resume_position == 40
    lease.discard()
    cache.check()
    assert resumes_at(cache, prompt(1, 50)) == 36
    assert not cache._store.promises


def test_a_pin_whose_payload_its_owner_lost_goes_at_once():
    cache = new_cache()
    with cache.acquire(prompt(1), pins=[(40, 1e6)]) as lease:
        cache.commit(lease, cache.plan(lease), Source())
        assert cache.confirm(lease, lambda payload: False) == 2
    cache.check()
    assert cache.stored_bytes == 0


def test_an_owner_that_needs_memory_gets_no_pin_but_one_whose_time_is_over():
    time = Time()
    cache = new_cache(clock=time)
    serve(cache, prompt(1, 41), pins=[(40, 10)])
    assert not cache.evict_least()
    time.now = 11.0
    assert cache.evict_least()
    cache.check()


def test_a_model_without_states_keeps_the_kv_before_a_pin():
    cache = new_cache(200, footprint=STATELESS)
    serve(cache, prompt(1), pins=[(20, 1e6)])
    fill(cache)
    assert resumes_at(cache, prompt(1)) == 20
    lengthened = serve(cache, prompt(1), pins=[(12, 1e6), (20, 1e6)])
    assert lengthened.checkpoints_pinned == 2


def test_a_pin_of_kv_that_is_not_there_promises_nothing():
    cache = new_cache(200, footprint=STATELESS)
    with cache.acquire(prompt(1), pins=[(20, 60)]) as lease:
        report = cache.commit(lease, Placement((8,)), Source(STATELESS))
    assert report.checkpoints_pinned == 0
    cache.check()


def test_kv_without_a_state_is_not_pinned():
    policy = parse_policy("vllm")
    cache = HostedCache(capacity_bytes=1000, footprint=HYBRID, policy=policy, grid=GRID, clock=Time())
    with cache.acquire(prompt(1), pins=[(40, 60)]) as lease:
        report = cache.commit(lease, Placement(()), Source())
    assert report.checkpoints_pinned == 0
    cache.check()


def test_a_policy_that_keeps_no_checkpoints_pins_none():
    cache = new_cache(policy=NoCheckpoints())
    assert serve(cache, prompt(1), pins=[(20, 60)]).checkpoints_stored == 0


def test_what_a_pin_saves_is_no_reason_for_other_states():
    plain, pinned = new_cache(10_000, policy=learned()), new_cache(10_000, policy=learned())
    for cache, pins in ((plain, ()), (pinned, [(20, 60)])):
        for number in range(3):
            serve(cache, [*prompt(1, 20), *prompt(number + 2, 20)], pins=pins)
    with pinned.acquire([*prompt(1, 20), *prompt(9, 20)], pins=[(20, 60)]) as lease:
        assert lease.resume_position == 20


def test_a_corrupt_promise_is_found():
    cache = new_cache(1000)
    serve(cache, prompt(1), pins=[(40, 60)])
    (checkpoint,) = cache._store.promises.checkpoints
    cache._store.queue.unpin(checkpoint)
    with pytest.raises(CacheCorruptionError, match="promised and not kept"):
        cache.check()


@pytest.mark.parametrize(
    "pins",
    ["40", b"40", 40, [40], [(0, 60)], [(41, 60)], [(1.5, 60)], [(4, 0)], [(4, -1)], [(4, float("nan"))],
     [(4, float("inf"))], [(4, "60")], [(4, True)], [(4, 60, 1)], [None]],
)  # fmt: skip
def test_pins_that_are_none_are_refused_by_name(pins):
    cache = new_cache()
    with pytest.raises(InvalidRequestError, match="pin"):
        cache.acquire(prompt(1), pins=pins)
    cache.check()


def test_no_pins_are_no_pins():
    assert as_pins(None, num_tokens=4) == as_pins([], num_tokens=4) == ()
    assert resumes_at(new_cache(policy=Dense(every=8)), prompt(1)) == 0
    with new_cache().acquire(prompt(1), pins=[(3, 60)]) as lease:
        assert lease.pins == (), "no checkpoint can be before the first grid position"
