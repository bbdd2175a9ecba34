"""What another tier holds is adopted without a request; what it holds too is worth less here."""

import math
from dataclasses import dataclass

import pytest

from milepost.errors import InvalidRequestError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.policies import parse_policy

GRID = 4
HYBRID = Footprint(checkpoint_bytes=100, kv_bytes_per_token=1)


@dataclass(frozen=True, eq=False)
class Payload:
    num_bytes: int


class Source:
    asked = False

    def checkpoint(self, position):
        self.asked = True
        return Payload(100)

    def kv_segments(self, start, end):
        self.asked = True
        return [Payload(GRID) for _ in range(start, end, GRID)]


class Damaged(Source):
    def kv_segments(self, start, end):
        raise OSError("unreadable")


def new_cache(capacity=1000, policy="tail"):
    return HostedCache(capacity_bytes=capacity, footprint=HYBRID, policy=parse_policy(policy), grid=GRID)


def serve(cache, tokens):
    with cache.acquire(tokens) as lease:
        report = cache.commit(lease, cache.plan(lease), Source())
    cache.check()
    return report


def prompt(number, length=40):
    return [number] * length


def test_an_adopted_checkpoint_is_resumed_from_and_is_no_request():
    cache = new_cache()
    adopted = cache.adopt(prompt(1, 36), Source(), num_tokens=40, tenant="")
    cache.check()
    assert adopted.position == 36
    assert cache.statistics().num_requests == 0
    report = serve(cache, prompt(1))
    assert (report.reused, report.unseen, report.alignment) == (36, 4, 0)


def test_one_that_is_there_is_kept_and_nothing_is_asked_for():
    cache = new_cache()
    serve(cache, prompt(1))
    source = Source()
    before = cache.statistics()
    assert cache.adopt(prompt(1, 36), source, num_tokens=40, tenant="").position == 36
    assert not source.asked
    assert cache.statistics() == before


def test_where_leases_leave_no_room_nothing_is_asked_for_and_nothing_goes():
    cache = new_cache(250)
    serve(cache, prompt(1))
    with cache.acquire(prompt(1)):
        source = Source()
        assert cache.adopt(prompt(2, 36), source, num_tokens=40, tenant="") is None
        assert not source.asked
        cache.check()
    assert cache.adopt(prompt(2, 36), Source(), num_tokens=40, tenant="") is not None
    cache.check()


def test_a_state_larger_than_the_footprint_says_may_find_no_room():
    class Larger(Source):
        def checkpoint(self, position):
            return Payload(112)

    dropped = []
    cache = HostedCache(
        capacity_bytes=137,
        footprint=HYBRID,
        policy=parse_policy("tail"),
        grid=GRID,
        on_drop=dropped.extend,
    )
    assert cache.adopt(prompt(1, 36), Larger(), num_tokens=40, tenant="") is None
    assert [each.num_bytes for each in dropped].count(112) == 1
    cache.check()


def test_a_source_that_fails_leaves_everything_as_it_was():
    cache = new_cache(250)
    serve(cache, prompt(1))
    before = cache.stored_bytes
    with pytest.raises(OSError, match="unreadable"):
        cache.adopt(prompt(2, 36), Damaged(), num_tokens=40, tenant="")
    cache.check()
    assert cache.stored_bytes == before
    assert serve(cache, prompt(1)).reused == 36


def test_tokens_off_the_grid_are_refused():
    with pytest.raises(InvalidRequestError, match="grid of 4"):
        new_cache().adopt(prompt(1, 7), Source(), num_tokens=40, tenant="")


@pytest.mark.parametrize("policy", ["tail", "learned", "marconi"])
def test_what_an_earlier_process_had_is_told_apart_from_what_was_never_seen(policy):
    cache = new_cache(policy=policy)
    cache.know(prompt(1), num_tokens=40, tenant="", had=[20, 36])
    cache.know(prompt(1), num_tokens=40, tenant="", had=[36])
    cache.check()
    report = serve(cache, prompt(1))
    assert (report.reset, report.unseen, report.reused) == (36, 0, 0)
    cache.know(prompt(1), num_tokens=40, tenant="", had=[36])
    cache.check()
    assert serve(cache, prompt(1)).reused == 36, "what is there was not lost"


def test_a_prompt_known_in_part_is_lengthened():
    cache = new_cache()
    cache.know(prompt(1, 20), num_tokens=20, tenant="")
    cache.know([*prompt(1, 20), *prompt(2, 20)], num_tokens=44, tenant="", had=[36])
    cache.check()
    assert serve(cache, [*prompt(1, 20), *prompt(2, 20)]).reset == 36


@pytest.mark.parametrize("policy", ["tail", "dense:16/learned", "learned"])
@pytest.mark.parametrize("has_copy", [1, 2])
def test_of_two_alike_the_one_with_a_copy_below_goes_first(policy, has_copy):
    cache = new_cache(600, policy)
    kept = {
        number: cache.adopt(prompt(number, 36), Source(), num_tokens=40, tenant="") for number in (1, 2, 3)
    }
    cache.note_copy(kept[has_copy], 5.0)
    assert kept[has_copy].saving == 5.0
    for number in (4, 5):
        cache.adopt(prompt(number, 36), Source(), num_tokens=40, tenant="")
    cache.check()
    assert [number for number in (1, 2, 3) if not kept[number].is_stored] == [has_copy]


def test_a_copy_that_is_dearer_to_bring_back_than_to_compute_changes_nothing():
    cache = new_cache()
    checkpoint = cache.adopt(prompt(1, 36), Source(), num_tokens=40, tenant="")
    cache.note_copy(checkpoint, 1e9)
    assert checkpoint.saving == 36
    cache.note_copy(checkpoint, math.inf)
    assert checkpoint.saving == 36


def test_a_copy_of_what_is_gone_is_nothing_to_note():
    cache = new_cache()
    checkpoint = cache.adopt(prompt(1, 36), Source(), num_tokens=40, tenant="")
    assert cache.evict(checkpoint)
    cache.note_copy(checkpoint, 5.0)
    cache.check()


def test_releasing_a_lease_releases_the_one_beside_it_and_distrust_spreads():
    upper, lower = new_cache(), new_cache()
    for cache in (upper, lower):
        serve(cache, prompt(1))
    lease, beside = upper.acquire(prompt(1)), lower.acquire(prompt(1))
    lease.beside = beside
    lease.release()
    assert beside.is_released
    lease, beside = upper.acquire(prompt(1)), lower.acquire(prompt(1))
    lease.beside = beside
    lease.discard()
    assert not lease.checkpoint.is_stored
    assert not beside.checkpoint.is_stored
    serve(lower, prompt(1))
    lease, beside = upper.acquire(prompt(1)), lower.acquire(prompt(1))
    lease.beside = beside
    lease.discard()
    assert beside.checkpoint.is_stored, "it is another one than was distrusted"


def test_kv_that_its_owner_lost_takes_every_checkpoint_beyond_with_it():
    cache = new_cache(10_000, "dense:8")
    branches = [[*prompt(1, 20), *prompt(number, 20)] for number in (2, 3)]
    for each in branches:
        serve(cache, each)
    assert cache.evict_beyond(branches[0], 20, tenant="") == 6, "three on each branch"
    cache.check()
    assert [serve(cache, each).reused for each in branches] == [16, 16]


def test_kv_of_a_prompt_that_nobody_knows_takes_nothing():
    cache = new_cache(10_000, "dense:8")
    serve(cache, prompt(1))
    assert cache.evict_beyond(prompt(2), 20, tenant="") == 0
    assert cache.evict_beyond(prompt(1, 41), 40, tenant="") == 1
    with cache.acquire(prompt(1)) as lease:
        assert cache.evict_beyond(prompt(1), 4, tenant="") == 3
        assert lease.checkpoint.is_stored, "it is in use"
    assert cache.forget_everything() == 1
