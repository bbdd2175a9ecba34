"""A lease holds what it resumes from until it is released, and nothing afterwards."""

import numpy as np

from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import Dense

PROMPT = np.arange(200)


class Payload:
    num_bytes = 10


class Source:
    def checkpoint(self, position):
        return Payload()

    def kv_segments(self, start, end):
        return [bytes([segment]) for segment in range(start // 64, end // 64)]


def cache_with_a_prompt() -> HostedCache:
    cache = HostedCache(
        capacity_bytes=10_000,
        footprint=Footprint(checkpoint_bytes=10, kv_bytes_per_token=1),
        policy=Dense(every=64),
    )
    with cache.acquire(PROMPT) as lease:
        cache.commit(lease, cache.plan(lease), Source())
    return cache


def test_a_released_lease_hands_out_no_payload():
    cache = cache_with_a_prompt()
    with cache.acquire(PROMPT) as lease:
        assert isinstance(lease.state, Payload)
        assert len(lease.kv_segments) == 3
    assert lease.state is None
    assert not lease.kv_segments
    assert lease.resume_position == 192
    lease.release()


def test_what_a_lease_resumed_from_can_be_discarded_although_that_releases_it():
    cache = cache_with_a_prompt()
    lease = cache.acquire(PROMPT)
    lease.discard()
    cache.check()
    assert lease.is_released
    with cache.acquire(PROMPT) as again:
        assert again.resume_position == 128


def test_a_request_that_resumes_deeper_from_elsewhere_is_planned_and_counted_from_there():
    cache = cache_with_a_prompt()
    with cache.acquire(PROMPT) as lease:
        lease.discard()
    with cache.acquire(PROMPT) as lease:
        assert lease.resume_position == 128
        lease.resume_deeper(192)
        assert cache.plan(lease).positions == ()
        report = cache.commit(lease, cache.plan(lease), Source())
    assert (report.reused, report.eviction, report.alignment, report.unseen) == (192, 0, 8, 0)
    longer = np.arange(300)
    with cache.acquire(longer) as lease:
        lease.resume_deeper(256)
        report = cache.commit(lease, cache.plan(lease), Source())
    assert (report.reused, report.placement, report.alignment, report.unseen) == (256, 0, 0, 44)
    cache.check()


def test_a_request_never_resumes_less_deep_than_it_found():
    cache = cache_with_a_prompt()
    with cache.acquire(PROMPT) as lease:
        lease.resume_deeper(64)
        assert lease.resume_position == 192
