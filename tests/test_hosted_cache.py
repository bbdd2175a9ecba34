"""An engine that owns the memory takes states back when it wants; its answers go on after their prompts."""

from dataclasses import dataclass

import pytest

from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import Dense
from milepost.policies import parse_policy

GRID = 4
PROMPT = range(30)
ANSWERED = range(48)


@dataclass(frozen=True)
class State:
    position: int
    num_bytes: int = 50


class Source:
    def checkpoint(self, position):
        return State(position)

    def kv_segments(self, start, end):
        return list(range(start, end, GRID))


def new_cache(dropped: list | None = None, *, policy=None) -> HostedCache:
    return HostedCache(
        capacity_bytes=10_000,
        footprint=Footprint(checkpoint_bytes=50, kv_bytes_per_token=1),
        policy=policy or Dense(every=8),
        grid=GRID,
        on_drop=None if dropped is None else dropped.extend,
    )


def serve(cache: HostedCache, tokens):
    """Run one request; return its lease, released."""
    with cache.acquire(tokens) as lease:
        cache.commit(lease, cache.plan(lease), Source())
    return lease


def test_a_state_that_its_owner_takes_back_is_evicted_once_and_counted():
    dropped = []
    cache = new_cache(dropped)
    serve(cache, PROMPT)
    with cache.acquire(PROMPT) as lease:
        checkpoint = lease.checkpoint
    assert cache.evict(checkpoint)
    assert dropped.count(State(24)) == 1
    assert not cache.evict(checkpoint), "it is gone"
    assert dropped.count(State(24)) == 1
    assert cache.statistics().num_evictions == 1
    cache.check()
    with cache.acquire(PROMPT) as again:
        assert again.resume_position == 16
        report = cache.commit(again, [], Source())
    assert (report.reused, report.eviction, report.placement) == (16, 8, 4)


def test_a_state_that_a_request_resumes_from_stays_whatever_its_owner_wants():
    dropped = []
    cache = new_cache(dropped)
    serve(cache, PROMPT)
    with cache.acquire(PROMPT) as lease:
        before = cache.statistics()
        assert not cache.evict(lease.checkpoint)
        assert cache.statistics() == before
        assert lease.state == State(24)
        assert not dropped
        cache.check()
    assert cache.evict(lease.checkpoint), "once it is released"


def test_an_answer_goes_on_where_its_prompt_is_the_latest_on_the_path():
    cache = new_cache()
    lease = serve(cache, PROMPT)
    assert cache.extend(lease, ANSWERED, Source()) == 48
    cache.check()
    with cache.acquire(range(60)) as following:
        assert following.resume_position == 48


def test_two_answers_to_one_prompt_go_on_side_by_side():
    """The second one is shorter; the prompt is known to be as long as it was."""
    cache = new_cache()
    lease = serve(cache, PROMPT)
    assert cache.extend(lease, ANSWERED, Source()) == 48
    cache.extend(lease, [*PROMPT, *range(90, 98)], Source())
    cache.check()
    with cache.acquire(range(60)) as following:
        assert following.resume_position == 48


@pytest.mark.parametrize("later", [PROMPT, range(40), [*range(30), 99]], ids=["same", "longer", "other"])
def test_an_answer_to_a_prompt_that_a_later_one_has_passed_stores_nothing_and_asks_for_nothing(later):
    class Untouched:
        def checkpoint(self, position):
            raise AssertionError("nothing is to be stored")

        kv_segments = checkpoint

    cache = new_cache()
    lease = serve(cache, PROMPT)
    serve(cache, later)
    before = cache.statistics()
    assert cache.extend(lease, ANSWERED, Untouched()) == 0
    assert cache.statistics() == before
    cache.check()


def test_an_answer_whose_prompt_is_passed_while_its_state_is_handed_out_stores_nothing():
    dropped = []
    cache = new_cache(dropped)
    lease = serve(cache, PROMPT)

    class Reentrant(Source):
        def checkpoint(self, position):
            serve(cache, PROMPT)
            return State(position)

    assert cache.extend(lease, ANSWERED, Reentrant()) == 0
    assert State(48) in dropped
    cache.check()
    with cache.acquire(range(60)) as following:
        assert following.resume_position == 24


def test_what_its_owner_cannot_part_with_is_passed_over_and_stays_where_it_ranks():
    dropped: list[State] = []
    cache = new_cache(dropped)
    serve(cache, PROMPT)
    order: list[int] = []
    assert not cache.evict_least(is_held=lambda state: order.append(state.position) or True)
    assert len(order) == cache.statistics().num_checkpoints
    assert not [each for each in dropped if isinstance(each, State)]

    assert cache.evict_least(is_held=lambda state: state.position == order[0])
    assert [each.position for each in dropped if isinstance(each, State)] == [order[1]]
    assert cache.evict_least(is_held=lambda state: False)
    assert [each.position for each in dropped if isinstance(each, State)] == [order[1], order[0]]
    cache.check()


def test_no_more_is_planned_than_the_engine_can_capture():
    cache = HostedCache(
        capacity_bytes=10_000,
        footprint=Footprint(checkpoint_bytes=50, kv_bytes_per_token=1),
        policy="learned",
        grid=GRID,
    )
    with cache.acquire(range(400)) as lease:
        anywhere = cache.plan(lease).positions
        assert len(anywhere) == 2
        lease.compute_in_calls((400,))
        (alone,) = cache.plan(lease).positions
        lease.compute_in_calls((400,), cut_tokens=1 << 30)
        assert cache.plan(lease).positions == (alone,), "no requests to come would pay for a cut"
        lease.compute_in_calls((400,), cut_tokens=0)
        assert cache.plan(lease).positions == anywhere, "cuts cost nothing"
        lease.compute_in_calls((anywhere[0], 400))
        assert cache.plan(lease).positions == anywhere, "each has a call of its own"


def test_kv_that_others_need_too_makes_a_checkpoint_worth_more_for_each_token_of_its_own():
    cache = new_cache()
    serve(cache, PROMPT)
    with cache.acquire(PROMPT) as lease:
        deepest = lease.checkpoint
    with cache.acquire([*PROMPT[:20], 99]) as lease:
        shallower = lease.checkpoint
    assert cache.worth_of_kv(deepest) > 0
    assert cache.worth_of_kv(deepest) <= cache.worth_of_kv(shallower), "the deeper one was used no later"
    before = cache.statistics()
    assert cache.statistics() == before
    cache.check()


def test_a_byte_is_worth_what_the_kv_is_over_all_that_a_checkpoint_frees():
    cache = new_cache()
    serve(cache, PROMPT)
    with cache.acquire(PROMPT) as lease:
        deepest = lease.checkpoint
    freed_bytes = deepest.num_bytes + deepest.kv_tokens * cache.footprint.kv_bytes_per_token
    worth = cache.worth_per_byte(deepest)
    assert worth > 0
    assert worth * freed_bytes == pytest.approx(cache.worth_of_kv(deepest) * (deepest.kv_tokens or 1))


@pytest.mark.parametrize("policy", ["learned", "vllm", "sglang", "marconi:alpha=0.5"])
def test_what_kv_is_worth_is_told_while_it_is_pinned_and_after_the_model_learned_more(policy):
    cache = new_cache(policy=parse_policy(policy))
    worths = []
    for number in range(60):
        serve(cache, [*PROMPT, *range(100 + number, 112 + number)])
        with cache.acquire([*PROMPT, 7]) as lease:
            if lease.checkpoint is not None:
                pinned = cache.worth_of_kv(lease.checkpoint)
        if lease.checkpoint is not None:
            worths.append((pinned, cache.worth_of_kv(lease.checkpoint)))
    assert len(worths) > 40
    assert all(pinned >= 0 and free >= 0 for pinned, free in worths)
    assert len(set(worths)) > 1, "it changes with what is learned, or with time"
    cache.check()
