"""Random prompts, aborts, priorities, preemptions and resets, against the schedulers without a model.

Ten thousand requests for each scheduler, with and without a match unit; a thousand without ``--full``.
"""

import random

import pool_account
import pytest
from bare_scheduler import BareEngine
from soaking import soak
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager

from milepost.vllm.attention_manager import PlannedAttentionManager

BLOCK = {None: 64, 64: 256}


@pytest.mark.parametrize("num_blocks", [60, 250], ids=["thrashing", "roomy"])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_nothing_leaks_hangs_or_is_read_before_it_is_there(
    is_async, unit, policy, num_blocks, model_folder, is_full
):
    if num_blocks == 60 and unit is None:
        num_blocks = 120
    engine = BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls="milepost.vllm.Scheduler",
        num_blocks=num_blocks,
        block_size=BLOCK[unit],
        prefix_match_unit=unit,
        scheduling_policy=policy,
        is_async=is_async,
        seed=1,
    )
    assert type(engine.scheduler).__name__ == ("PlannedAsyncScheduler" if is_async else "PlannedScheduler")
    # In all, ten thousand or one thousand for each scheduler, with and without the unit.
    soak(
        engine,
        num_requests=2500 if is_full else 250,
        seed=num_blocks,
        longest=num_blocks * BLOCK[unit] // 3,
    )
    if policy == "fcfs" and num_blocks < 200:
        assert engine.num_preemptions > 0
    assert sum(engine.num_cached_tokens.values()) > 0


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_nothing_leaks_where_a_model_has_states_alone(is_async, model_folder, is_full):
    engine = BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls="milepost.vllm.Scheduler",
        num_blocks=24,
        num_state_groups=1,
        attention=(),
        is_async=is_async,
        seed=2,
    )
    soak(engine, num_requests=5000 if is_full else 500, seed=3, longest=2500)
    assert sum(engine.num_cached_tokens.values()) > 0


@pytest.mark.parametrize("unit", [None, 64], ids=["blocks", "unit64"])
def test_what_the_cache_believes_in_is_there(unit, model_folder):
    engine = BareEngine(
        model_folder("qwen3-next"),
        scheduler_cls="milepost.vllm.Scheduler",
        num_blocks=150 if unit is None else 60,
        block_size=BLOCK[unit],
        prefix_match_unit=unit,
        seed=5,
    )
    rng = random.Random(6)
    documents = [[rng.randrange(1000) for _ in range(3000)] for _ in range(4)]
    for _ in range(150):
        # Written on from a random place: what makes room lies on the same path now and then.
        document = rng.choice(documents)
        document[rng.randrange(200, 3000) :] = [rng.randrange(1000) for _ in range(3000)]
        del document[3000:]
        engine.add(document[: rng.randrange(600, 3000)])
        engine.run()
        assert pool_account.num_missing(engine.scheduler) == 0
    assert engine.scheduler.checkpoint_manager.statistics().num_evictions > 50


def serve_bursts(model, *, seed):
    """Requests that share one of few prefixes come together, so that one hits what another is filling."""
    engine = BareEngine(
        model,
        scheduler_cls="milepost.vllm.Scheduler",
        num_blocks=60,
        block_size=256,
        prefix_match_unit=64,
        max_num_batched_tokens=2048,
        seed=4,
    )
    rng = random.Random(seed)
    documents = [[rng.randrange(1000) for _ in range(1400)] for _ in range(4)]
    depths = [rng.randrange(200, 1400) for _ in range(5)]
    for _ in range(50):
        for _ in range(rng.choice([1, 3, 6])):
            shared = rng.choice(documents)[: rng.choice(depths) + rng.randrange(-40, 40)]
            rest = [rng.randrange(1000) for _ in range(rng.randrange(5, 100))]
            engine.add(shared + rest, max_tokens=rng.choice([1, 8]))
        for _ in range(rng.choice([2, 4, 12])):
            engine.step()
    engine.run()
    assert sum(engine.num_cached_tokens.values()) > 0


def serve_many_bursts(model, *, num):
    for seed in range(num):
        serve_bursts(model, seed=seed)


def test_no_block_is_copied_before_it_is_filled(model_folder, is_full):
    serve_many_bursts(model_folder("qwen3-next"), num=300 if is_full else 30)


def test_the_simulated_worker_notices_a_copy_before_the_block_is_filled(model_folder, monkeypatch):
    monkeypatch.setattr(
        PlannedAttentionManager,
        "get_num_blocks_to_allocate",
        FullAttentionManager.get_num_blocks_to_allocate,
    )
    with pytest.raises(AssertionError, match="wrong KV"):
        serve_many_bursts(model_folder("qwen3-next"), num=30)


def test_the_simulated_worker_notices_a_lost_state(model_folder):
    engine = BareEngine(
        model_folder("qwen3-next"), scheduler_cls="milepost.vllm.Scheduler", num_blocks=200, seed=4
    )
    document = list(range(1000))
    for last in range(4):
        engine.add([*document, last])
        engine.run()
    assert max(engine.num_cached_tokens.values()) > 0, "or the test shows nothing"
    engine._worker._states[:] = 0
    engine.add([*document, 5])
    with pytest.raises(AssertionError, match="wrong state"):
        engine.run()


def test_the_simulated_worker_notices_lost_kv(model_folder):
    engine = BareEngine(
        model_folder("qwen3-next"), scheduler_cls="milepost.vllm.Scheduler", num_blocks=200, seed=4
    )
    document = list(range(1000))
    for last in range(4):
        engine.add([*document, last])
        engine.run()
    engine._worker._kv[:, -1] = 0
    engine.add([*document, 5])
    with pytest.raises(AssertionError, match="wrong KV"):
        engine.run()
