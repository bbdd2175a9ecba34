"""Tenants who never come again leave nothing behind, and the others notice nothing."""

import numpy as np
import pytest

from milepost.errors import InvalidRequestError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import Dense, Placement
from milepost.policies import CachePolicy, learned
from milepost.store import ContentlessPayloads

FOOTPRINT = Footprint(checkpoint_bytes=50, kv_bytes_per_token=1)
STATELESS = Footprint(checkpoint_bytes=0, kv_bytes_per_token=1)
PROMPT = np.arange(40, dtype=np.int32)


def new_cache(footprint=FOOTPRINT, policy=None):
    return HostedCache(
        capacity_bytes=100_000,
        footprint=footprint,
        policy=policy or CachePolicy(Dense(every=4)),
        grid=4,
    )


def serve(cache, tenant, tokens=PROMPT):
    source = ContentlessPayloads(cache.footprint, segment_tokens=4)
    with cache.acquire(tokens, tenant=tenant) as lease:
        return cache.commit(lease, cache.plan(lease), source).reused


@pytest.mark.parametrize("footprint", [FOOTPRINT, STATELESS])
@pytest.mark.parametrize("policy", [None, learned])
def test_what_a_gone_tenant_had_is_dropped_and_what_others_have_stays(footprint, policy):
    cache = new_cache(footprint, policy and policy())
    for _ in range(2):
        serve(cache, "stays")
    before = cache.stored_bytes, cache.statistics().history_tokens, cache.statistics().num_checkpoints
    for tail in range(3):
        serve(cache, "goes", np.concatenate((PROMPT[: 10 * tail], PROMPT[::-1])).astype(np.int32))
    num_checkpoints = cache.statistics().num_checkpoints
    num_dropped = cache.forget_tenants(lambda tenant: tenant == "goes")
    assert num_dropped == num_checkpoints - before[2]
    after = cache.stored_bytes, cache.statistics().history_tokens, cache.statistics().num_checkpoints
    assert after == before
    cache.check()
    assert serve(cache, "goes") == 0
    assert serve(cache, "stays") == 36
    cache.check()


@pytest.mark.parametrize("footprint", [FOOTPRINT, STATELESS])
def test_what_a_lease_holds_goes_when_it_is_released(footprint):
    cache = new_cache(footprint)
    serve(cache, "goes")
    lease = cache.acquire(PROMPT, tenant="goes")
    cache.forget_tenants(lambda tenant: True)
    assert lease.resume_position == 36
    assert cache.stored_bytes > 0
    cache.check()
    lease.release()
    assert cache.stored_bytes == 0
    cache.check()
    assert serve(cache, "goes") == 0


def test_a_request_whose_states_have_no_place_here_is_counted_and_stores_nothing():
    cache = new_cache()
    with cache.acquire(PROMPT) as lease:
        with pytest.raises(InvalidRequestError, match="source=None"):
            cache.commit(lease, Placement((8,)), None)
        cache.commit(lease, Placement(()), None)
    assert cache.stored_bytes == 0
    assert cache.statistics().num_requests == 1
    cache.check()
