"""Which caches may lie beside the states; and that MLA's are planned for as full attention is."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pool_account
import pytest
import torch
from bare_scheduler import BareEngine
from vllm.v1 import kv_cache_interface
from vllm.v1.core.kv_cache_utils import get_group_id
from vllm.v1.kv_cache_interface import KVCacheGroupSpec, MambaSpec, MLAAttentionSpec, SlidingWindowSpec

from milepost.vllm import compatibility
from milepost.vllm.cache_kinds import unsupported_cache

BLOCK = {None: 64, 64: 256}
SIZES = {"block_size": 64, "num_kv_heads": 1, "head_size": 16, "dtype": torch.float32}
MLA = MLAAttentionSpec(**SIZES)
STATE = MambaSpec(block_size=64, shapes=((16,),), dtypes=(torch.float32,), mamba_cache_mode="align")
WITH_MLA = [("mla",), ("mla", "full"), ("full", "mla"), ("mla", "mla")]


def group(spec, **options):
    return KVCacheGroupSpec(["a layer"], spec, **options)


def new_engine(model_folder, unit, attention, **options):
    return BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls="milepost.vllm.Scheduler",
        block_size=BLOCK[unit],
        prefix_match_unit=unit,
        attention=attention,
        **options,
    )


def serve(engine, *, seed, num_requests=120, longest=2500):
    """Serve prompts that share beginnings, some of them aborted."""
    rng = random.Random(seed)
    documents = [[rng.randrange(1000) for _ in range(longest)] for _ in range(6)]
    recent = []
    for _ in range(num_requests):
        tokens = rng.choice(documents)[: rng.randrange(longest)] + [rng.randrange(1000) for _ in range(70)]
        recent = [*recent[-7:], engine.add(tokens, max_tokens=rng.choice([1, 20, 150]))]
        for _ in range(rng.choice([0, 1, 3, 8])):
            engine.step()
        if rng.random() < 0.1:
            engine.abort(rng.choice(recent))
    engine.run()


@pytest.mark.parametrize("attention", WITH_MLA, ids="+".join)
def test_mla_is_planned_for_alone_and_beside_others(attention, model_folder):
    engine = new_engine(model_folder, None, attention)
    assert type(engine.scheduler).__name__ == "PlannedScheduler"
    layout = engine.scheduler.checkpoint_manager.layout
    assert layout.state_groups == (0, 1, 2)
    assert layout.kv_groups == tuple(range(3, 3 + len(attention)))


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("attention", WITH_MLA[:2], ids="+".join)
def test_nothing_leaks_or_is_read_before_it_is_there(attention, is_async, unit, model_folder):
    engine = new_engine(model_folder, unit, attention, num_blocks=150, is_async=is_async)
    serve(engine, seed=1)
    pool_account.assert_idle(engine.scheduler, most_missing=pool_account.blocks_of_a_prompt(engine.scheduler))
    assert sum(engine.num_cached_tokens.values()) > 0
    assert engine.scheduler.checkpoint_manager.counts.kept > 0


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
def test_mla_is_served_as_full_attention_is(unit, model_folder):
    by_kind = {}
    for attention in ("mla", "full"):
        engine = new_engine(model_folder, unit, (attention,), num_blocks=120)
        serve(engine, seed=2)
        manager = engine.scheduler.checkpoint_manager
        by_kind[attention] = engine.num_cached_tokens, manager.counts, manager.statistics()
    assert by_kind["mla"] == by_kind["full"]
    assert sum(by_kind["mla"][0].values()) > 0
    assert by_kind["mla"][2].num_evictions > 0


def test_lost_kv_of_mla_is_noticed(model_folder):
    engine = new_engine(model_folder, None, ("full", "mla"), num_blocks=300)
    document = list(range(1000))
    for last in range(3):
        engine.add([*document, last])
        engine.run()
    assert engine.num_cached_tokens["r3"] > 0
    mla = 4
    for block in engine.scheduler.kv_cache_manager.block_pool.blocks:
        if block.block_hash is not None and get_group_id(block.block_hash) == mla:
            engine._worker._kv[block.block_id] = 0
    engine.add([*document, 5])
    with pytest.raises(AssertionError, match="wrong KV"):
        engine.run()


def attention_of(name, **fields):
    kind = getattr(kv_cache_interface, name, None)
    return kind(**SIZES, **fields) if kind else pytest.skip(f"this vLLM has no {name}")


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("SlidingWindowSpec", {"sliding_window": 128}, "the blocks of the window before it"),
        ("SinkFullAttentionSpec", {"sink_len": 64}, "attention sinks"),
        ("ChunkedLocalAttentionSpec", {"attention_chunk_size": 128}, "the blocks of its chunk"),
        ("CrossAttentionSpec", {}, "an encoder"),
        ("RSWASpec", {"rswa_window": 128}, "from the middle"),
        ("HiddenStateCacheSpec", {}, "written for drafts"),
        ("CircularBufferSpec", {}, "cannot be found again by vLLM itself"),
    ],
)
def test_what_is_not_managed_as_full_attention_is_refused(name, fields, reason):
    spec = attention_of(name, **fields)
    assert reason in unsupported_cache(group(spec))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model_version": "deepseek_v4"}, "deepseek_v4 compresses several tokens"),
        ({"tokens_per_state": 4}, "holds 4 tokens in one entry"),
        ({"cache_role": "indexer"}, "the index of a sparse attention"),
    ],
)
def test_caches_of_sparse_attention_are_refused(fields, reason):
    if "cache_role" in fields:
        fields = {"cache_role": kv_cache_interface.SparseCacheRole(fields["cache_role"])}
    assert unsupported_cache(group(MLA)) is None
    assert reason in unsupported_cache(group(replace(MLA, **fields)))


def test_a_group_that_has_a_role_already_is_refused():
    roles = kv_cache_interface.KVCacheGroupRole
    assert unsupported_cache(group(MLA, role=roles.DEFAULT)) is None
    reason = unsupported_cache(group(MLA, role=roles.HISPARSE_SOURCE))
    assert "has the role 'hisparse_source' already" in reason
    assert "has the role 'somebody' already" in unsupported_cache(group(STATE, role="somebody"))


def test_a_group_in_another_pool_is_refused():
    assert "the host's memory" in unsupported_cache(group(MLA, host_resident=True))


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ([SlidingWindowSpec(**SIZES, sliding_window=128)], "its SlidingWindowSpec is not managed as full"),
        ([MLA, replace(MLA, tokens_per_state=4)], "4 tokens in one entry"),
        ([replace(MLA, block_size=128)], "blocks of different lengths"),
    ],
)
def test_one_such_group_is_enough_and_the_reason_is_said(others, reason, model_folder):
    config = new_engine(model_folder, None, ("mla",)).config
    groups = [group(STATE), *map(group, others)]
    assert reason in compatibility.why_not(config, SimpleNamespace(kv_cache_groups=groups))
