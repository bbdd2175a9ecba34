"""Records that the collector does not visit, and that are freed all the same."""

import gc
import tracemalloc

import numpy as np
import pytest

from milepost import ContentlessPayloads, Footprint, PrefixCache, parse_policy
from milepost.untracked import untracked

FOOTPRINT = Footprint(checkpoint_bytes=2_000, kv_bytes_per_token=8)
SOURCE = ContentlessPayloads(FOOTPRINT, segment_tokens=16)
POLICIES = ["learned", "balanced:4", "vllm", "marconi:alpha=0.5"]


def new_cache(policy: str, **options) -> PrefixCache:
    options = {"capacity_bytes": 10**9} | options
    return PrefixCache(footprint=FOOTPRINT, policy=parse_policy(policy), grid=16, **options)


def serve(cache: PrefixCache, *, requests: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    documents = [random.integers(0, 1000, 400) for _ in range(20)]
    for _ in range(requests):
        document = documents[random.integers(20)]
        prompt = np.concatenate([document[: random.integers(1, 400)], random.integers(0, 1000, 24)])
        with cache.acquire(prompt) as lease:
            cache.commit(lease, cache.plan(lease), SOURCE)


def test_a_record_is_taken_from_the_collector():
    class Record:
        __slots__ = ("other",)

    record = Record()
    record.other = {}
    assert gc.is_tracked(record)
    assert untracked(record) is record
    assert not gc.is_tracked(record)
    assert not gc.is_tracked(untracked(record))
    gc.collect()
    assert record.other == {}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_the_collector_visits_does_not_grow_with_the_cache(policy):
    cache = new_cache(policy)
    serve(cache, requests=300)
    gc.collect()
    before = len(gc.get_objects())
    serve(cache, requests=300, seed=1)
    gc.collect()
    assert cache.statistics().num_checkpoints > 300
    assert len(gc.get_objects()) - before < 100


@pytest.mark.parametrize("policy", POLICIES)
def test_a_cache_that_is_dropped_gives_its_memory_back(policy):
    warm = new_cache(policy)
    serve(warm, requests=50)
    del warm
    gc.collect()
    tracemalloc.start()
    try:
        cache = new_cache(policy)
        serve(cache, requests=400)
        used = tracemalloc.get_traced_memory()[0]
        assert used > 500_000
        del cache
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < used / 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_evicted_and_forgotten_gives_its_memory_back(policy):
    cache = new_cache(policy, capacity_bytes=100_000, history_tokens=10_000)
    serve(cache, requests=600)
    gc.collect()
    tracemalloc.start()
    try:
        serve(cache, requests=300, seed=1)
        gc.collect()
        first = tracemalloc.get_traced_memory()[0]
        for seed in range(2, 6):
            serve(cache, requests=300, seed=seed)
        gc.collect()
        # Far more has come and gone than is held now.
        assert tracemalloc.get_traced_memory()[0] < 3 * first
    finally:
        tracemalloc.stop()
    cache.check()
