"""What KV is worth is told as it was ranked last, and that is bounded: it is nearly always what ranking anew
gives, and never far from it.
"""

import numpy as np
import pytest

from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.policies import parse_policy
from milepost.store.eviction_queue import EvictionQueue
from milepost.traces import open_trace


class Payload:
    num_bytes = 1


class Source:
    def checkpoint(self, position):
        return Payload()

    def kv_segments(self, start, end):
        return ()


def ends(cache):
    """Return the checkpoints behind which no other lies: these are what KV goes with."""
    return [each for each in cache._store.queue.checkpoints() if not each.below]


def told_and_ranked_anew(workload, *, num_states, num_requests=300):
    """Return what KV at the ends is worth as it is told and once it is ranked anew, shape ``[ends, 2]``, of
    every tenth request.
    """
    requests = [*open_trace(f"synthetic:{workload},requests={num_requests},seed=4").first(num_requests)]
    key_tokens = requests[0].key_tokens
    cache = HostedCache(
        capacity_bytes=num_states,
        footprint=Footprint(checkpoint_bytes=1, kv_bytes_per_token=0),
        policy=parse_policy("learned"),
        grid=64,
        segment_tokens=1 << 40,
        key_tokens=key_tokens,
    )
    pairs = []
    for number, request in enumerate(requests):
        with cache.acquire(request.keys, num_tokens=request.num_tokens) as lease:
            cache.commit(lease, cache.plan(lease), Source())
        if number % 10:
            continue
        # As an engine that looks for a victim has it: what is marked was ranked.
        told = [(end, cache.worth_of_kv(end)) for end in ends(cache)]
        for end, worth in told:
            cache._store.queue.mark_stale(end)
            pairs.append((worth, cache.worth_of_kv(end)))
    return np.array(pairs)


@pytest.mark.parametrize("workload", ["documents", "chat", "agents"])
@pytest.mark.parametrize("num_states", [20, 100])
def test_what_kv_is_worth_is_what_ranking_anew_gives_but_for_a_few(workload, num_states):
    told, anew = told_and_ranked_anew(workload, num_states=num_states).T

    assert told.size > 300
    assert np.mean(told != anew) < 0.08
    assert np.mean(told <= anew / 2) < 1 / 300
    assert np.all(told > anew / 4)
    assert np.all(told < anew * 2)


def test_without_the_marks_it_would_be_far_off(monkeypatch):
    monkeypatch.setattr(EvictionQueue, "rerank", lambda *_: None)
    told, anew = told_and_ranked_anew("documents", num_states=100).T

    assert np.mean(told != anew) > 0.08
    assert np.mean((told > anew * 2) | (told < anew / 2)) > 1 / 300
