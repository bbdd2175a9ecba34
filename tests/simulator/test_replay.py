"""Replays: the cache that serves, driven by recorded requests."""

import pytest
from small_traces import four_requests, request

from milepost import Footprint, PrefixCache, parse_policy
from milepost.errors import InvalidRequestError
from milepost.footprint import KVWindow
from milepost.simulator import Replayer, replay
from milepost.traces import open_trace

FOOTPRINT = Footprint(checkpoint_bytes=10, kv_bytes_per_token=1)


def cache(capacity_bytes: int = 1_000, policy: str = "tail", **options) -> PrefixCache:
    options = {"grid": 16, "key_tokens": 16, "footprint": FOOTPRINT} | options
    return PrefixCache(capacity_bytes=capacity_bytes, policy=parse_policy(policy), **options)


def test_each_request_comes_back_with_what_was_asked_placed_and_reused():
    requests = four_requests()
    replayed = list(replay(requests, cache()))
    assert [one.trace_request for one in replayed] == requests
    assert [one.placement.positions for one in replayed] == [(48,), (64,), (32,), ()]
    assert [one.request.overlap_depth for one in replayed] == [0, 64, 32, 64]
    assert [one.report.reused for one in replayed] == [0, 48, 0, 48]
    assert [one.report.placement for one in replayed] == [0, 16, 32, 0]
    assert [one.report.alignment for one in replayed] == [0, 0, 0, 16]


def test_a_replay_is_the_engine_s_own_cache_and_leaves_it_sound():
    served = cache(300, "learned")
    reports = [one.report for one in replay(open_trace("synthetic:chat,requests=60,seed=2"), served)]
    served.check()
    held = served.statistics()
    assert held.num_requests == 60
    assert held.reused == sum(report.reused for report in reports)
    assert held.num_tokens == held.reused + held.unseen + held.placement + held.eviction + held.alignment


def test_a_replay_is_lazy_so_a_trace_need_not_end():
    def endless():
        while True:
            yield from four_requests()

    replayed = replay(endless(), cache())
    assert [next(replayed).report.reused for _ in range(4)] == [0, 48, 0, 48]


def test_the_peak_is_what_was_stored_after_the_fullest_request():
    replayer = Replayer(cache(84))
    peaks = []
    for one in four_requests():
        replayer.step(one)
        peaks.append(replayer.peak_bytes)
    # 48 + 10 for A; 64 + 2 * 10 with B; C and D evict.
    assert peaks == [58, 84, 84, 84]


def test_segments_longer_than_the_grid_are_handed_out_whole():
    coarse = cache(segment_tokens=32)
    reused = [one.report.reused for one in replay(four_requests(), coarse, segment_tokens=32)]
    assert reused == [0, 48, 0, 48], "states are where they were"
    # The states after 48 and 64 tokens of one path, and after 32 of another: its first segment is theirs too.
    assert coarse.statistics().kv_bytes == 2 * 32
    coarse.check()


def test_a_state_early_in_a_window_takes_less():
    footprint = Footprint(
        checkpoint_bytes=110, kv_bytes_per_token=1, windows=(KVWindow(kept_tokens=100, bytes_per_token=1),)
    )
    windowed = cache(footprint=footprint)
    list(replay([request(1, 2, 3)], windowed))
    assert windowed.statistics().checkpoint_bytes == 10 + 32


def test_tenants_share_nothing():
    twice = [request(1, 2, 3, tenant="a"), request(1, 2, 3, tenant="b"), request(1, 2, 3, tenant="a")]
    assert [one.report.reused for one in replay(twice, cache())] == [0, 0, 32]


def test_requests_of_another_block_size_are_refused_and_named():
    with pytest.raises(
        InvalidRequestError, match=r"request 'x' has keys of 32 tokens and the cache keys of 16"
    ):
        list(replay([request(1, block=32, request_id="x")], cache()))
