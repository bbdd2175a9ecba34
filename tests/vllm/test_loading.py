"""What a KV connector brings is resumed from, kept while it is worth it, and accounted for."""

from dataclasses import replace

import pytest
from small_vllm import SmallVllm

DOCUMENT = list(range(320))


@pytest.fixture(params=[False, True], ids=["learned-leads", "stock-leads"])
def vllm(request):
    """A pool that has lost the document of three prompts."""
    vllm = SmallVllm(has_to_prove_itself=request.param)
    for last in range(3):
        vllm.serve([*DOCUMENT, last])
    for prefix_hash in vllm.hashes(DOCUMENT):
        vllm.pool.lose(prefix_hash)
    return vllm


def load(vllm, request, position, *, is_there=True):
    """Plan ``request``, and have a connector bring what lies before ``position``."""
    assert vllm.plan_request(request) == 0
    vllm.checkpoint_manager.note_loaded(request.name, position, is_kept=True)
    if is_there:
        state = vllm.checkpoint_manager._requests[request.name]
        keys = [(prefix_hash, 3) for prefix_hash in request.hashes[: position // 16]]
        keys += [(state.prompt.ending(position), group) for group in (0, 1, 2)]
        for key in keys:
            (block,) = vllm.pool.take(1)
            vllm.pool.hash(block, key)
            vllm.pool.release([block])


def test_it_resumes_there_and_nothing_is_planned_before(vllm):
    request = vllm.ask([*DOCUMENT, *range(1000, 1100)])
    load(vllm, request, 304)
    state = vllm.checkpoint_manager._requests[request.name]
    assert state.hit == state.lease.resume_position == 304
    assert state.kept_positions[0] == 304
    assert all(position > 304 for position in state.stops)
    vllm.checkpoint_manager.commit(request.name)
    vllm.checkpoint_manager.finish(request.name)
    assert vllm.checkpoint_manager.counts.loaded == 304


def test_it_counts_as_reused_and_not_as_lost(vllm):
    before = vllm.checkpoint_manager.statistics()
    request = vllm.ask([*DOCUMENT, *range(1000, 1100)])
    load(vllm, request, 304)
    vllm.checkpoint_manager.commit(request.name)
    vllm.checkpoint_manager.finish(request.name)
    after = vllm.checkpoint_manager.statistics()
    assert after.reused - before.reused == 304
    # It was kept at 320 too, and that is gone.
    assert after.eviction - before.eviction == 16
    assert after.num_tokens - before.num_tokens == 420
    vllm.checkpoint_manager.check()


def test_what_was_loaded_is_believed_once_it_is_there(vllm):
    num_before = vllm.checkpoint_manager.statistics().num_checkpoints
    request = vllm.ask([*DOCUMENT, *range(1000, 1100)])
    load(vllm, request, 304)
    vllm.checkpoint_manager.commit(request.name)
    vllm.checkpoint_manager.finish(request.name)
    again = vllm.ask([*DOCUMENT[:310], *range(2000, 2100)])
    assert vllm.plan_request(again) == 304
    assert vllm.checkpoint_manager._requests[again.name].lease.resume_position == 304
    vllm.finish(again)
    assert vllm.checkpoint_manager.statistics().num_checkpoints <= num_before + 1


def test_aborted_before_anything_came_nothing_is_believed(vllm):
    request = vllm.ask([*DOCUMENT, *range(1000, 1100)])
    assert vllm.plan_request(request) == 0
    before = vllm.checkpoint_manager.statistics()
    vllm.checkpoint_manager.note_loaded(request.name, 304, is_kept=True)
    vllm.checkpoint_manager.finish(request.name)
    after = replace(vllm.checkpoint_manager.statistics(), capacity_bytes=before.capacity_bytes)
    assert after == before, "it was no request"
    vllm.check()


def test_a_state_that_cannot_be_kept_is_resumed_from_all_the_same(vllm):
    before = vllm.checkpoint_manager.statistics()
    request = vllm.ask([*DOCUMENT, *range(1000, 1100)])
    assert vllm.plan_request(request) == 0
    vllm.checkpoint_manager.note_loaded(request.name, 304, is_kept=False)
    assert vllm.checkpoint_manager.loaded_position(request.name) == 0
    vllm.checkpoint_manager.commit(request.name)
    vllm.checkpoint_manager.finish(request.name)
    after = vllm.checkpoint_manager.statistics()
    assert after.reused - before.reused == 304
    # It was kept at 320 too, and that is gone.
    assert after.eviction - before.eviction == 16


def test_a_load_less_deep_than_the_pool_changes_nothing():
    vllm = SmallVllm()
    for last in range(3):
        vllm.serve([*DOCUMENT, last])
    request = vllm.ask([*DOCUMENT, 7])
    hit = vllm.plan_request(request)
    vllm.checkpoint_manager.note_loaded(request.name, hit - 16, is_kept=True)
    vllm.checkpoint_manager.note_loaded("unknown", 64, is_kept=True)
    assert vllm.checkpoint_manager._requests[request.name].hit == hit > 16
    vllm.finish(request)
    assert vllm.checkpoint_manager.counts.loaded == 0
