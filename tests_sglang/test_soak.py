"""Random traffic: no state, and no KV, of another prefix is ever given out, and nothing leaks."""

import json

import pytest
from benchmarks.sglang.bare_engine import BareEngine, WrongStateError
from sglang.srt.managers.schedule_batch import ScheduleBatch
from traffic import Traffic


@pytest.fixture
def num_requests(request):
    return 5000 if request.config.getoption("--full") else 160


@pytest.mark.parametrize(
    ("page", "num_states", "num_kv_tokens", "stop_tokens"),
    [
        (1, 24, 1 << 14, 1024),
        (64, 24, 1 << 14, 1024),
        (1, 14, 1 << 15, 1024),
        (64, 40, 6000 // 64 * 64, 1024),
        (1, 60, 1 << 15, 0),
    ],
    ids=["page 1", "page 64", "short of states", "short of KV", "chunks that are cut"],
)
def test_no_request_resumes_from_another_prefix_and_nothing_leaks(
    page, num_states, num_kv_tokens, stop_tokens, num_requests, monkeypatch
):
    monkeypatch.setenv("MILEPOST_SGLANG", json.dumps({"stop_tokens": stop_tokens}))
    engine = BareEngine(page=page, num_states=num_states, num_kv_tokens=num_kv_tokens, chunk=512)
    traffic = Traffic(engine, seed=page + num_states)
    traffic.run(num_requests)

    # Fewer and fewer of many: conversations pile up, and few slots are left for theirs.
    assert engine.num_restored > num_requests // 10
    assert traffic.num_aborted > 0
    counts, account = engine.manager.counts, engine.manager.statistics()
    assert engine.manager.num_open == 0
    assert account.reused == sum(traffic.hits), "the account is of what SGLang found"
    assert min(counts.kept, counts.answers, account.num_evictions) > 0
    assert stop_tokens or counts.stops > num_requests // 20


@pytest.mark.parametrize("core", ["python", "rust"])
def test_the_same_traffic_is_right_in_sglang_as_it_is(core, num_requests):
    engine = BareEngine(None, core=core, num_states=24, chunk=512)
    Traffic(engine, seed=3).run(num_requests)

    assert engine.num_restored > num_requests // 8


def test_a_state_captured_one_step_too_early_is_found_out(monkeypatch):
    engine = BareEngine(num_states=24, chunk=512)
    capture = engine._capture
    monkeypatch.setattr(engine, "_capture", lambda req, slot, num_tokens: capture(req, slot, num_tokens - 64))

    with pytest.raises(WrongStateError):
        Traffic(engine, seed=1).run(200)


def test_a_state_named_by_another_length_is_found_out(monkeypatch):
    engine = BareEngine(num_states=24, chunk=512)
    prepare = ScheduleBatch._mamba_radix_cache_v2_req_prepare_for_extend

    def misnamed(batch, req):
        entry = prepare(batch, req)
        if entry.track_mask and req.kv.mamba_last_track_seqlen > 64:
            is_slot = entry._fields[1] == "track_index"
            slot = entry[1] if is_slot else req.kv.mamba_ping_pong_track_buffer[entry[1]]
            engine._capture(req, slot, req.kv.mamba_last_track_seqlen)
            monkeypatch.setattr(engine, "_capture", lambda *_: None)
            req.kv.mamba_last_track_seqlen -= 64
        return entry

    monkeypatch.setattr(ScheduleBatch, "_mamba_radix_cache_v2_req_prepare_for_extend", misnamed)
    with pytest.raises(WrongStateError):
        Traffic(engine, seed=1).run(200)


def test_a_slot_that_nobody_gives_back_is_found_out():
    engine = BareEngine(num_states=24, chunk=512)
    Traffic(engine, seed=1).run(20)
    assert engine.pool.mamba_allocator.alloc(1) is not None

    with pytest.raises(AssertionError, match="leaked_mamba_pages"):
        engine.check_leaks()


def test_two_ranks_decide_alike():
    engines = [BareEngine(num_states=20, chunk=512) for _ in range(2)]
    traffics = [Traffic(engine, seed=5) for engine in engines]
    for traffic in traffics:
        traffic.run(200)

    one, other = engines
    assert traffics[0].hits == traffics[1].hits
    assert [depth for depth, _ in one.positions()] == [depth for depth, _ in other.positions()]
    assert one.manager.counts == other.manager.counts
    assert one.manager.statistics() == other.manager.statistics()
