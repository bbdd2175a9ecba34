"""Which states and which KV go: what nobody wants, then what is worth least, and never what is in use."""

from types import SimpleNamespace

import pytest
from benchmarks.sglang.bare_engine import BareEngine
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from test_placement import ask, tokens
from traffic import Traffic


def test_documents_that_are_asked_about_again_and_again_stay_while_others_pass_by():
    found = {}
    for backend in (None, "milepost"):
        engine = BareEngine(backend, num_states=12)
        found[backend] = 0
        for asked in range(60):
            # Three are asked about now and then, and between those come others that nobody returns to.
            found[backend] += ask(engine, asked % 3, 1000 + asked)[0]
            for other in range(3):
                ask(engine, 100 + 3 * asked + other, asked)
        engine.check_leaks()
    assert found["milepost"] > 1.2 * found[None]


def test_a_state_that_nobody_planned_goes_first():
    engine = BareEngine("milepost", num_kv_tokens=1 << 15)
    for document in range(3):
        ask(engine, document, document)
    kept = {node for _, node in engine.positions()}
    running = engine.start(tokens(9, 500))
    engine.manager.finish(running.req.rid)
    engine.cache.checkpoint_manager.admit = lambda *_, **__: None
    engine.manager.position_in = lambda *_: 448
    while not running.is_prefilled:
        engine.step(running)
    engine.manager.keeps_answer = lambda *_: True
    engine.finish(running)
    assert len(engine.positions()) == len(kept) + 1

    engine.cache.evict(EvictParams(num_tokens=0, mamba_num=1))
    assert {node for _, node in engine.positions()} == kept
    engine.check()


def test_what_a_request_holds_is_never_taken():
    engine = BareEngine("milepost", num_states=8, num_kv_tokens=1 << 15)
    ask(engine, 1, 1)
    running = engine.start([*tokens(1, 3000), *tokens(55, 100)])
    assert running.hit > 0
    for document in range(2, 8):
        ask(engine, document, document)
    engine.check()
    while not running.is_prefilled:
        engine.step(running)
    engine.finish(running)
    engine.check()
    engine.check_leaks()


def test_kv_that_no_wanted_state_needs_goes_before_any_that_is_of_use():
    engine = BareEngine("milepost", num_states=40, num_kv_tokens=1 << 15)
    for document in range(4):
        # One chunk each, so that each leaves one state, with nothing after it.
        engine.serve(tokens(document, 1500))
    # What KV is worth is known by now, and changes for one of them.
    engine.cache.use_free_time()
    engine.manager._cache.current.evict_least()
    (unwanted,) = engine.manager.states.unwanted
    assert len(engine.positions()) == 4
    engine.cache.evict(EvictParams(num_tokens=1))
    assert len(engine.positions()) == 3
    assert unwanted not in engine.manager.nodes_with_states
    engine.check()
    engine.check_leaks()


@pytest.mark.parametrize("page", [1, 64])
def test_kv_goes_in_the_order_that_ranking_all_of_it_anew_would_give(page):
    engine = BareEngine(page=page, num_states=80, num_kv_tokens=12_032, chunk=512)
    kv, walks = engine.cache.components[ComponentType.FULL], []
    pop = kv._order.pop

    def noted(leaves):
        walks.append((min(map(kv._order._priority, leaves)), kv._order._priority(leaf := pop(leaves))))
        return leaf

    kv._order.pop = noted
    Traffic(engine, seed=2).run(300)

    assert len(walks) > 100
    is_least = [chosen == least for least, chosen in walks]
    assert sum(is_least) > 0.9 * len(walks), "of the rest, what they are worth has fallen lately"
    assert all(chosen[0] == least[0] for least, chosen in walks), "what no state needs goes first"


def test_after_a_flush_no_end_of_the_old_tree_is_held():
    engine = BareEngine(num_states=40, num_kv_tokens=1 << 15)
    for document in range(4):
        engine.serve(tokens(document, 1500))
    order = engine.cache.components[ComponentType.FULL]._order
    engine.cache.use_free_time()
    assert len(order) > 0
    engine.flush()

    assert len(order) == 0


def test_while_a_chunk_is_computed_room_is_made_for_the_next_one_and_no_more():
    engine = BareEngine(num_states=40, num_kv_tokens=8192, chunk=1024)
    for document in range(5):
        engine.serve(tokens(document, 1500))
    assert engine.allocator.available_size() < 3072
    waited_for = []
    alloc = engine._alloc_kv
    engine._alloc_kv = lambda req, start, end: (
        waited_for.append(max(0, end - start - engine.allocator.available_size())) or alloc(req, start, end)
    )
    running = engine.start(tokens(9, 2600))
    free = []
    while not running.is_prefilled:
        engine.step(running)
        free.append(engine.allocator.available_size())
    engine.finish(running)

    assert waited_for[1:] == [0, 0], "only the first chunk waits for room"
    assert 1024 <= free[0] < 1024 + 1500, "no more than for the next chunk"
    assert free[1] >= 552
    engine.check()
    engine.check_leaks()


@pytest.mark.parametrize(("num_kv_tokens", "is_made"), [(1 << 17, True), (1 << 14, False)])
def test_room_is_made_for_who_waits_where_that_is_little_of_the_pool(num_kv_tokens, is_made):
    engine = BareEngine(num_states=200, num_kv_tokens=num_kv_tokens, chunk=1024)
    for document in range(5):
        engine.serve(tokens(document, 1500))
    taken = engine.allocator.alloc(engine.allocator.available_size())
    engine.launch()
    assert engine.allocator.available_size() == 0, "nobody waits"
    engine.waiting = [SimpleNamespace(origin_input_ids=tokens(901, 3000))]
    engine.launch()

    free = engine.allocator.available_size()
    assert 1024 <= free < 1024 + 1500 if is_made else free == 0
    engine.allocator.free(taken)
    engine.check()
    engine.check_leaks()


def test_a_batch_that_decodes_makes_no_room_for_who_was_unfinished_when_it_was_a_prefill():
    engine = BareEngine(num_states=40, num_kv_tokens=8192, chunk=1024)
    for document in range(5):
        engine.serve(tokens(document, 1500))
    running = engine.start(tokens(9, 2600))
    engine.step(running)
    # Others' prompts ended in that batch, and it goes on with their answers.
    engine.batch.forward_mode = ForwardMode.DECODE
    assert engine.batch.chunked_req is running.req
    taken = engine.allocator.alloc(engine.allocator.available_size())
    engine.launch()
    assert engine.allocator.available_size() == 0

    # As SGLang leaves a request that it takes back, for want of memory.
    end, running.req.extend_end = running.req.extend_end, None
    engine.launch()

    running.req.extend_end = end
    engine.allocator.free(taken)
    while not running.is_prefilled:
        engine.step(running)
    engine.finish(running)
    engine.check_leaks()
