"""Which states are captured: one for each chunk, where it is planned, and none elsewhere."""

import random

import pytest
from benchmarks.sglang.bare_engine import BareEngine

from milepost.placement import Placement


def tokens(seed, count):
    drawn = random.Random(seed)
    return [drawn.randrange(1, 50_000) for _ in range(count)]


def ask(engine, document, seed, **options):
    return engine.serve([*tokens(document, 3000), *tokens(1000 + seed, 150)], **options)


def test_a_document_is_found_by_the_second_request_on_it_where_sglang_needs_three():
    stock, planned = BareEngine(None), BareEngine("milepost")
    for document in range(6):
        # What documents are like is learned from the first.
        hits = {
            engine: [ask(engine, document, 10 * document + i)[0] for i in range(3)]
            for engine in (stock, planned)
        }

    assert hits[stock] == [0, 2048, 2944]
    assert hits[planned] == [0, 2944, 2944]


def test_where_slots_are_free_a_chunk_without_a_plan_leaves_what_sglang_keeps(monkeypatch):
    engine = BareEngine("milepost", num_states=60, num_kv_tokens=8000)
    monkeypatch.setattr(engine.manager._cache.current, "plan", lambda *_: Placement())
    captured = [ask(engine, document, document)[1] for document in range(8)]

    assert engine.allocator.available_size() < 3150, "there is no room for the KV of another prompt"
    assert captured == [[2048, 3136]] * 8


def test_nothing_is_kept_where_nothing_is_planned(monkeypatch):
    engine = BareEngine("milepost")
    monkeypatch.setattr(engine.manager, "position_in", lambda *_: None)

    assert ask(engine, 1, 1) == (0, [])
    assert engine.positions() == []
    engine.check_leaks()


def test_a_chunk_leaves_the_state_at_the_position_that_is_planned_in_it(monkeypatch):
    engine = BareEngine("milepost")
    monkeypatch.setattr(engine.manager, "position_in", lambda _, start, end: {0: 1024, 2048: 2944}[start])

    assert ask(engine, 1, 1)[1] == [1024, 2944]
    assert [depth for depth, _ in engine.positions()] == [1024, 2944]


def test_no_position_off_the_grid_of_a_chunk_is_ever_asked_for(monkeypatch):
    engine = BareEngine("milepost")
    asked, position_in = [], engine.manager.position_in

    def noted(request_id, start, end):
        position = position_in(request_id, start, end)
        asked.append((start, position))
        return position

    monkeypatch.setattr(engine.manager, "position_in", noted)
    for seed in range(12):
        # Every other chunk begins off the grid.
        odd = [random.Random(seed).randrange(65, 700) for _ in range(30)]
        cuts = [length for each in odd for length in (each, 128 + -each % 64)]
        ask(engine, seed % 3, seed, cuts=cuts)

    captured = [(start, position) for start, position in asked if position is not None]
    assert len(captured) > 3
    assert all((position - start) % 64 == 0 and position % 64 == 0 for start, position in captured)
    assert engine.manager.counts.off_grid > 0, "chunks that begin off the grid were met"


def test_a_request_that_must_not_be_inserted_is_left_to_sglang():
    engine = BareEngine("milepost")
    running = engine.start(tokens(1, 3000))
    running.req.skip_radix_cache_insert = True
    while not running.is_prefilled:
        engine.step(running)
    engine.finish(running)

    assert engine.positions() == []
    assert engine.manager.num_open == 0
    engine.check_leaks()


def test_salts_and_adapters_share_nothing():
    engine = BareEngine("milepost", num_states=40, num_kv_tokens=1 << 15)
    for salt, extra_key in ((None, None), ("a", None), (None, "a"), ("b", "a")):
        assert ask(engine, 1, 1, salt=salt, extra_key=extra_key)[0] == 0
        assert ask(engine, 1, 2, salt=salt, extra_key=extra_key)[0] > 0


def test_a_client_can_say_where_its_messages_end(monkeypatch):
    engine, told = BareEngine("milepost"), []
    admit = engine.manager.admit
    monkeypatch.setattr(
        engine.manager, "admit", lambda *args, **kw: told.append(kw["breakpoints"]) or admit(*args, **kw)
    )
    for given in ([3000], (64.0, 128), "everything", [None, -5, 1 << 40], 7, {"at": 3}):
        ask(engine, 1, 1, custom_params={"milepost_breakpoints": given})

    assert told == [(3000,), (64, 128), (), (), (), ()], "nonsense is left out"
    engine.check()


def test_a_request_that_was_retracted_is_served_again_and_teaches_nothing():
    engine = BareEngine("milepost")
    running = engine.start(tokens(1, 3000))
    engine.step(running)
    engine.abort(running)
    req = running.req
    req.reset_for_retract()
    req.finished_reason = req.finished_len = None
    again = engine.admit(req)
    while not again.is_prefilled:
        engine.step(again)
    engine.finish(again)

    assert engine.manager.statistics().num_requests == 1
    engine.check()
    engine.check_leaks()


@pytest.mark.parametrize("page", [1, 16, 64, 128])
def test_states_sit_on_the_grid_of_any_page(page):
    engine = BareEngine("milepost", page=page)
    for seed in range(4):
        hit, captured = ask(engine, 1, seed)
        assert all(position % max(64, page) == 0 for position in captured)
    assert hit > 2000
    engine.check()
    engine.check_leaks()
