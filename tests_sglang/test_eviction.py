"""Which states and which KV go: what nobody wants, then what is worth least, and never what is in use."""

from benchmarks.sglang.bare_engine import BareEngine
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from test_placement import ask, tokens


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
    leaves = list(engine.cache.tree_core.evictable_device_leaves)
    order = engine.cache.tree_core.eviction_strategy
    assert [order.get_priority(leaf)[0] for leaf in leaves] == [1, 1, 1, 1]

    engine.manager._cache.current.evict_least()
    (unwanted,) = engine.manager.states.unwanted
    assert min(leaves, key=order.get_priority).id == unwanted
    engine.cache.evict(EvictParams(num_tokens=1))
    assert len(engine.positions()) == 3
    assert unwanted not in engine.manager.nodes_with_states
    engine.check()
    engine.check_leaks()
