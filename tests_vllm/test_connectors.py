"""With KV connectors: what is loaded is known to the plan, and others are refused with their names."""

import copy
import random

import pool_account
import pytest
from bare_scheduler import BareEngine
from benchmarks.vllm.servers.transfers import Transfers
from offloading_worker import engine_with_tier
from vllm.config import KVTransferConfig

import milepost.vllm.scheduler
from milepost.vllm import compatibility

PLANNED = "milepost.vllm.Scheduler"


@pytest.fixture
def new_engine(model_folder):
    return lambda **options: engine_with_tier(
        model_folder("qwen3-next"),
        **{"scheduler_cls": PLANNED, "num_blocks": 70, "num_chunks": 400, "seed": 1} | options,
    )


def ask_about_documents(engine, *, num=60, seed=5):
    """Return how many prompt tokens there were."""
    rng = random.Random(seed)
    documents = [[rng.randrange(1000) for _ in range(900)] for _ in range(5)]
    total = 0
    for _ in range(num):
        shared = rng.choice(documents)[: rng.choice([400, 640, 900])]
        prompt = shared + [rng.randrange(1000) for _ in range(rng.randrange(10, 80))]
        total += len(prompt)
        engine.add(prompt, max_tokens=rng.choice([2, 8]))
        engine.run()
    return total


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("block", "unit", "num_blocks"), [(64, None, 70), (256, 64, 40)])
def test_what_is_loaded_is_kept_in_the_pool(block, unit, num_blocks, is_async, new_engine):
    options = {"block_size": block, "prefix_match_unit": unit, "num_blocks": num_blocks}
    planned = new_engine(is_async=is_async, **options)
    stock = new_engine(is_async=is_async, scheduler_cls=None, **options)
    ask_about_documents(planned)
    ask_about_documents(stock)
    cached, cached_by_stock = (sum(each.num_cached_tokens.values()) for each in (planned, stock))
    loaded, loaded_by_stock = (each._worker.transfers.num_loaded for each in (planned, stock))
    assert loaded_by_stock > 100, "or the test shows nothing"
    assert cached >= 0.99 * cached_by_stock
    assert loaded / cached <= 1.1 * loaded_by_stock / cached_by_stock
    pool_account.assert_idle(planned.scheduler)


@pytest.mark.parametrize(("block", "unit", "num_blocks"), [(64, None, 70), (256, 64, 40)])
def test_the_account_knows_what_was_loaded(block, unit, num_blocks, new_engine):
    engine = new_engine(block_size=block, prefix_match_unit=unit, num_blocks=num_blocks)
    total = ask_about_documents(engine)
    manager = engine.scheduler.checkpoint_manager
    account = manager.statistics()
    assert account.num_tokens == total
    assert account.reused == sum(engine.num_cached_tokens.values())
    assert 0 < manager.counts.loaded < account.reused
    # The tier has room for everything, so nothing was lost but what nobody had put there.
    assert account.eviction == 0
    lost = account.unseen + account.alignment + account.placement + account.reset
    assert account.reused + lost == total


def test_nothing_is_planned_below_what_the_tier_holds(new_engine):
    engine = new_engine()
    document = list(range(1000))
    for last in range(3):
        engine.add([*document, last])
        engine.run()
    engine.scheduler.reset_prefix_cache()
    before = copy.copy(engine.scheduler.checkpoint_manager.counts)
    request = engine.add([*document, *range(2000, 2400)])
    engine.run()
    after = engine.scheduler.checkpoint_manager.counts
    loaded = engine.num_cached_tokens[request]
    assert loaded >= 896
    assert after.loaded - before.loaded == loaded
    # All that is promised is captured: behind what was loaded.
    assert after.planned - before.planned == after.kept - before.kept == after.stops - before.stops > 0


def test_the_next_request_finds_in_the_pool_what_was_loaded(new_engine):
    engine = new_engine()
    document = list(range(1000))
    for last in range(3):
        engine.add([*document, last])
        engine.run()
    engine.scheduler.reset_prefix_cache()
    for last in range(3, 6):
        engine.add([*document, last])
        engine.run()
    counts, transfers = engine.scheduler.checkpoint_manager.counts, engine._worker.transfers
    assert counts.loaded == engine.num_cached_tokens["r4"] == engine.num_cached_tokens["r6"]
    assert transfers.num_loaded == 15 + 3


def test_a_request_that_is_aborted_while_it_loads_leaves_nothing(new_engine):
    engine = new_engine(num_blocks=200)
    document = list(range(1000))
    for last in range(3):
        engine.add([*document, last])
        engine.run()
    engine.scheduler.reset_prefix_cache()
    request = engine.add([*document, 4])
    engine.step()
    assert engine._worker.transfers.num_loaded == 0
    engine.abort(request)
    engine.run()
    pool_account.assert_idle(engine.scheduler)


def test_the_simulated_tier_notices_a_chunk_of_another_prefix(new_engine):
    engine = new_engine()
    document = list(range(1000))
    for last in range(3):
        engine.add([*document, last])
        engine.run()
    engine.scheduler.reset_prefix_cache()
    tier = engine._worker.tier
    tier.update({key: (True, held + 1) for key, (is_state, held) in tier.items() if is_state})
    engine.add([*document, 4])
    with pytest.raises(AssertionError, match="wrong state"):
        engine.run()


def test_the_simulated_tier_notices_a_block_that_was_taken_before_it_was_stored(new_engine, monkeypatch):
    begin = Transfers.begin

    def without_flush(self, metadata):
        if metadata is not None:
            metadata.jobs_to_flush = set()
        begin(self, metadata)

    monkeypatch.setattr(Transfers, "begin", without_flush)
    engine = new_engine(num_blocks=40, most_steps=20)
    rng = random.Random(5)
    for _ in range(40):
        engine.add([rng.randrange(1000) for _ in range(300)], max_tokens=2)
    documents = [[rng.randrange(1000) for _ in range(900)] for _ in range(3)]
    for number in range(30):
        engine.add([*documents[number % 3], number], max_tokens=2)
    with pytest.raises(AssertionError, match="wrong"):
        engine.run(most_idle_steps=100)


def refused(engine, **transfer):
    config = copy.copy(engine.config)
    config.kv_transfer_config = KVTransferConfig(kv_role="kv_both", **transfer)
    return compatibility.why_not(config, engine.kv_cache_config)


def test_other_connectors_are_refused_by_name(model_folder):
    engine = BareEngine(model_folder("qwen3-next"), scheduler_cls=PLANNED)
    offloading = {"kv_connector": "OffloadingConnector", "kv_role": "kv_both"}
    lmcache = {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
    assert refused(engine, kv_connector="OffloadingConnector") is None
    assert "LMCacheConnectorV1 is not supported" in refused(engine, kv_connector="LMCacheConnectorV1")
    assert "Mine of my.module" in refused(engine, kv_connector="Mine", kv_connector_module_path="my.module")
    combined = {"kv_connector": "MultiConnector"}
    assert refused(engine, **combined, kv_connector_extra_config={"connectors": [offloading]}) is None
    reason = refused(engine, **combined, kv_connector_extra_config={"connectors": [offloading, lmcache]})
    assert "LMCacheConnectorV1 is not supported" in reason
    inner = {**combined, "kv_connector_extra_config": {"connectors": [lmcache]}}
    reason = refused(engine, **combined, kv_connector_extra_config={"connectors": [offloading, inner]})
    assert "LMCacheConnectorV1 is not supported" in reason


def test_a_refused_connector_is_said_once_and_vllm_runs_as_it_is(model_folder, monkeypatch):
    said = []
    monkeypatch.setattr(
        milepost.vllm.scheduler.logger, "warning", lambda text, *values: said.append(text % values)
    )
    engine = BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls=PLANNED,
        kv_transfer_config=KVTransferConfig(kv_connector="DecodeBenchConnector", kv_role="kv_both"),
    )
    assert type(engine.scheduler).__name__ == "Scheduler"
    assert len(said) == 1
    assert "DecodeBenchConnector is not supported" in said[0]
