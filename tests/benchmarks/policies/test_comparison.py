"""A point of the comparison: who reuses most, and what that leaves to compute."""

import pytest
from benchmarks.policies.comparison import Point

from milepost.simulator import simulate
from milepost.traces import open_trace

CAPACITY = 40_000


@pytest.fixture(scope="module")
def point():
    requests = list(open_trace("synthetic:documents,requests=60,seed=1,block=64"))
    best = {
        policy: simulate(requests, policy=policy, capacity_kv_tokens=CAPACITY, checkpoint_kv_tokens=1_536.0)
        for policy in ("none", "tail", "learned", "clairvoyant")
    }
    ceiling = best["none"].ceiling_fraction
    return Point(trace="documents", capacity_kv_tokens=CAPACITY, ceiling_fraction=ceiling, best=best)


def test_the_best_peer_is_neither_ours_nor_the_one_that_knows_the_future(point):
    reused = {name: result.reused_tokens for name, result in point.best.items()}
    assert reused["clairvoyant"] > reused["tail"] > reused["none"] == 0
    assert point.best_peer is point.best["tail"]


def test_work_is_what_is_not_reused(point):
    ours, peer = point.ours, point.best_peer
    computed = [result.input_tokens - result.reused_tokens for result in (ours, peer)]
    assert point.work_ratio == pytest.approx(computed[0] / computed[1])
    assert (point.work_ratio < 1.0) == (point.lead > 0.0)
