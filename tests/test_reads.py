"""What says that it reads changes nothing: the whole state of a cache is compared before and after."""

from collections.abc import Iterator

import numpy as np
import pytest

from milepost import ContentlessPayloads, Footprint, parse_policy
from milepost.hosted_cache import HostedCache
from milepost.store import BranchPoint, Checkpoint, Node, SeenPrompt

FOOTPRINT = Footprint(checkpoint_bytes=200, kv_bytes_per_token=1)
SOURCE = ContentlessPayloads(FOOTPRINT, segment_tokens=4)
POLICIES = ["learned", "tail+junction", "tail+junction/learned", "marconi:alpha=0.5", "sglang", "vllm"]


@pytest.fixture(params=POLICIES)
def cache(request) -> HostedCache:
    """A cache in the middle of its work: full, with leases, branches, evictions and history."""
    cache = HostedCache(capacity_bytes=4_000, footprint=FOOTPRINT, policy=parse_policy(request.param), grid=4)
    for prompt in prompts(80):
        with cache.acquire(prompt) as lease:
            cache.commit(lease, cache.plan(lease), SOURCE)
    assert cache.statistics().num_evictions > 0
    return cache


def prompts(count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    documents = [random.integers(0, 50, 200) for _ in range(5)]
    for _ in range(count):
        document = documents[random.integers(5)]
        yield np.concatenate([document[: random.integers(1, 200)], random.integers(0, 50, 12)])


def state(cache: HostedCache) -> list[object]:
    """Everything that a cache knows, by value, down to every slot of every record."""
    store = cache._store
    whole: list[object] = [cache.statistics(), store.tree.version, store.budget.stored_bytes]
    whole.append(None if cache.policy.lessons is None else repr(cache.policy.lessons.export()))
    whole.append(sorted(checkpoint.serial for checkpoint in store.queue.pinned))
    for node in store.tree.nodes():
        records = (node, node.owner, node.branch_point, *node.checkpoints)
        whole += [None if record is None else list(slots(record)) for record in records]
    return whole


# Ranks are brought up to date whenever somebody asks for a victim, or for what victims are worth.
LAZY = {"covered_by", "group", "kv_tokens", "worth"}


def slots(record: Node | SeenPrompt | BranchPoint | Checkpoint) -> Iterator[tuple[str, object]]:
    for kind in type(record).__mro__:
        for name in sorted(set(getattr(kind, "__slots__", ())) - LAZY):
            value = getattr(record, name)
            if isinstance(value, list | dict):
                value = [id(each) for each in (value.values() if isinstance(value, dict) else value)]
            yield name, value if isinstance(value, int | float | bytes | tuple | list | None) else id(value)


def test_a_plan_changes_nothing_and_comes_out_the_same_again(cache):
    for prompt in prompts(90):
        with cache.acquire(prompt) as lease:
            before = state(cache)
            plan = cache.plan(lease)
            assert cache.plan(lease) == plan
            assert cache.plan(lease, given_positions=(), capture_tokens=8) == cache.plan(
                lease, capture_tokens=8
            )
            assert state(cache) == before
    cache.check()


def test_looking_at_a_cache_changes_nothing(cache):
    before = state(cache)
    cache.statistics()
    cache.check()
    store = cache._store
    assert len(store.queue.checkpoints()) == len(store.queue)
    for num_bytes in (1, 500, 3_000, 100_000):
        assert store.evictor.room_worth(num_bytes) >= 0.0
    assert state(cache) == before
    cache.check()


def test_a_request_that_comes_to_nothing_changes_nothing(cache):
    before = state(cache)
    for prompt in prompts(30):
        cache.acquire(prompt).release()
    assert state(cache) == before


def test_the_comparison_sees_a_single_slot(cache):
    before = state(cache)
    next(node for node in cache._store.tree.nodes() if node.checkpoints).checkpoints[0].last_used += 1
    assert state(cache) != before
