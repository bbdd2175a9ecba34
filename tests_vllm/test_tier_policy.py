"""``TierPolicy`` through vLLM's own factory and manager: by worth under the plan, by recency alone."""

import random

import pool_account
import pytest
from offloading_worker import engine_with_tier
from vllm.v1.kv_offload.cpu.policies.factory import CachePolicyFactory

from milepost.vllm import TierPolicy, tier_policy

PLANNED = "milepost.vllm.Scheduler"
OURS = {"eviction_policy": "TierPolicy", "cache_policy_module_path": "milepost.vllm"}


@pytest.fixture
def said(monkeypatch):
    said = []

    def note(text, *values):
        # The scheduler has the same logger.
        if text.startswith("TierPolicy"):
            said.append(text % values)

    monkeypatch.setattr(tier_policy.logger, "warning", note)
    return said


@pytest.fixture
def new_engine(model_folder):
    return lambda **options: engine_with_tier(
        model_folder("qwen3-next"),
        **{"scheduler_cls": PLANNED, "num_blocks": 60, "num_chunks": 120, "seed": 1} | options,
    )


def policy_of(engine):
    return engine.scheduler.connector.connector_scheduler.manager._policy


def ask(engine, *, num=60):
    """Return how many tokens were not computed: few documents are asked about again, most prompts never."""
    rng = random.Random(3)
    documents = [[rng.randrange(1000) for _ in range(900)] for _ in range(3)]
    for number in range(num):
        if number % 4 == 0:
            engine.add([*documents[number // 4 % 3], number], max_tokens=2)
        else:
            engine.add([rng.randrange(1000) for _ in range(rng.randrange(500, 1000))], max_tokens=2)
        engine.run()
    return sum(engine.num_cached_tokens.values())


def test_vllm_finds_it_by_its_name():
    assert CachePolicyFactory.get_cache_policy_cls("TierPolicy", "milepost.vllm") is TierPolicy


def test_under_the_plan_it_keeps_what_requests_come_back_to(new_engine, said):
    by_worth, by_recency = new_engine(extra_config=OURS), new_engine()
    cached, cached_by_recency = ask(by_worth), ask(by_recency)
    assert policy_of(by_worth).is_joined
    assert cached >= 1.15 * cached_by_recency
    assert not said
    policy_of(by_worth).check()
    pool_account.assert_idle(by_worth.scheduler)


def test_alone_it_goes_by_recency_and_says_so_once(new_engine, said):
    alone, lru = (
        new_engine(scheduler_cls=None, extra_config=OURS),
        new_engine(scheduler_cls=None),
    )
    cached, cached_by_lru = ask(alone, num=30), ask(lru, num=30)
    assert not policy_of(alone).is_joined
    assert len(said) == 1
    assert "not told of the prompts" in said[0]
    assert cached >= cached_by_lru
    policy_of(alone).check()


def test_where_the_plan_steps_aside_it_is_alone(new_engine, said):
    engine = new_engine(extra_config=OURS, additional_config={"milepost": {"enabled": False}})
    ask(engine, num=4)
    assert not policy_of(engine).is_joined
    assert len(said) == 1


def test_a_policy_of_another_scheduler_is_not_taken(new_engine):
    alone = new_engine(scheduler_cls=None, extra_config=OURS)
    joined = new_engine(extra_config=OURS)
    assert not policy_of(alone).is_joined
    assert policy_of(joined).is_joined


@pytest.mark.parametrize("blocks_per_chunk", [1, 2])
def test_chunks_of_several_blocks_are_whole_or_useless(blocks_per_chunk, new_engine):
    engine = new_engine(extra_config=OURS, num_chunks=60, blocks_per_chunk=blocks_per_chunk)
    ask(engine)
    assert engine.scheduler.checkpoint_manager.counts.loaded > 0
    policy_of(engine).check()
    pool_account.assert_idle(engine.scheduler)


def test_a_reset_of_the_tier_leaves_nothing(new_engine):
    engine = new_engine(extra_config=OURS)
    ask(engine, num=8)
    assert policy_of(engine)._chunks
    assert engine.scheduler.reset_prefix_cache(reset_connector=True)
    assert not policy_of(engine)._chunks
    policy_of(engine).check()
    ask(engine, num=8)
    policy_of(engine).check()
