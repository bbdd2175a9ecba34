import numpy as np
import pytest

from milepost.footprint import Footprint, PrefillCost
from milepost.hosted_cache import HostedCache
from milepost.placement import Placement
from milepost.store import ContentlessPayloads

FOOTPRINT = Footprint(checkpoint_bytes=1000, kv_bytes_per_token=2, cost=PrefillCost.tokens())
STEP = 16


def make_cache(capacity_bytes=1 << 20):
    return HostedCache(capacity_bytes=capacity_bytes, footprint=FOOTPRINT, policy="tail", grid=STEP)


def add(cache, tokens, positions=(), *, tenant="", pins=()):
    with cache.acquire(np.asarray(tokens, np.int32), tenant=tenant, pins=pins) as lease:
        left = tuple(each for each in positions if each > lease.resume_position)
        cache.commit(lease, Placement(left), ContentlessPayloads(FOOTPRINT, segment_tokens=STEP))


def prompt(*parts):
    """Parts of 64 equal tokens each."""
    return [token for part in parts for token in [part] * 64]


def test_prompts_that_begin_alike_hang_from_what_they_share():
    cache = make_cache()
    add(cache, prompt(1, 2), (64, 112))
    add(cache, prompt(1, 3), (64, 112))
    found = cache.outline()
    assert [(node.parent, node.start, node.end) for node in found.nodes] == [
        (None, 0, 64),
        (0, 64, 128),
        (0, 64, 128),
    ]
    assert [[each.position for each in node.checkpoints] for node in found.nodes] == [[64], [112], [112]]
    # The latest used comes first.
    assert [node.first_keys[0] for node in found.nodes] == [1, 3, 2]
    assert [node.kv_tokens for node in found.nodes] == [64, 48, 48]
    assert {each.num_bytes for node in found.nodes for each in node.checkpoints} == {1000}
    assert (found.num_tenants, found.num_hidden) == (1, 0)


def test_it_says_what_is_kept_for_a_client_and_what_is_in_use():
    cache = make_cache()
    add(cache, prompt(1, 2), (64, 112), pins=((64, 100.0),))
    with cache.acquire(np.asarray(prompt(1, 2), np.int32)):
        (node,) = cache.outline().nodes
        assert [(each.position, each.is_promised, each.is_pinned) for each in node.checkpoints] == [
            (64, True, False),
            (112, False, True),
        ]
    (node,) = cache.outline().nodes
    assert not any(each.is_pinned for each in node.checkpoints)


def test_what_went_is_told_of():
    cache = make_cache()
    add(cache, prompt(1, 2), (64, 112))
    cache.clear()
    add(cache, prompt(1, 2), (112,))
    (node,) = cache.outline().nodes
    assert node.lost == (64,)
    assert [each.position for each in node.checkpoints] == [112]


def test_clients_are_numbers():
    cache = make_cache()
    add(cache, prompt(1), (48,), tenant="a-secret")
    add(cache, prompt(1), (48,), tenant="another")
    found = cache.outline()
    assert [node.tenant for node in found.nodes] == [0, 1]
    assert found.num_tenants == 2
    assert "secret" not in repr(found)


def test_slower_tiers_are_asked_for_the_same_prompts():
    fast, slow = make_cache(), make_cache()
    for cache, positions in ((fast, (112,)), (slow, (64, 112))):
        add(cache, prompt(1, 2), positions)
        add(cache, prompt(1, 3), positions)
    # In the slower one, the prompt goes on: what lies beyond is not of the part shown.
    add(slow, prompt(1, 2, 4), (64, 112, 176))
    found = fast.outline(slower=(slow,))
    assert [(node.start, node.elsewhere) for node in found.nodes] == [
        (0, ((64,),)),
        (64, ((112,),)),
        (64, ((112,),)),
    ]
    assert [node.elsewhere for node in fast.outline().nodes] == [(), (), ()]


def test_it_is_bounded_whatever_the_tree_holds():
    cache = make_cache(1 << 30)
    for number in range(400):
        add(cache, prompt(1, 1000 + number), (112,))
    for number in range(100):
        add(cache, prompt(5000 + number), (48,), tenant=f"client {number}")
    for most in (1, 2, 7, 48):
        found = cache.outline(most_nodes=most)
        assert len(found.nodes) <= most
        shown = len(found.nodes)
        hidden = found.num_hidden + sum(node.num_hidden for node in found.nodes)
        tops = sum(node.parent is None for node in found.nodes)
        # Everything is shown or counted where it would hang; clients that are left out count once.
        assert tops + found.num_hidden == 101
        assert shown + hidden >= 101
    first = cache.outline(most_nodes=48).nodes[0]
    assert first.first_keys[0] == 1
    assert first.num_hidden == 400 - sum(node.parent == 0 for node in cache.outline(most_nodes=48).nodes)


def test_long_prompts_are_not_looked_up_elsewhere():
    cache = make_cache(1 << 30)
    add(cache, [*range(1 << 17), 1], (64,))
    add(cache, prompt(9), (48,))
    nodes = cache.outline(slower=(cache,)).nodes
    assert {node.end: node.elsewhere for node in nodes} == {(1 << 17) + 1: ((),), 64: ((48,),)}


def test_it_only_reads():
    cache = make_cache()
    add(cache, prompt(1, 2), (64, 112))
    before, version = cache.statistics(), cache._store.tree.version
    cache.outline(slower=(cache,))
    assert (cache.statistics(), cache._store.tree.version) == (before, version)
    cache.check()


@pytest.mark.parametrize("most", [0, 5])
def test_an_empty_tree_has_no_nodes(most):
    assert make_cache().outline(most_nodes=most).nodes == ()
