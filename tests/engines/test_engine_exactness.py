"""Whatever the cache does, the answers are those of an engine without one, bit for bit."""

import pytest
import torch
from tiny_engine import assert_equal, branching_prompts, open_engine, without_cache

from families import tiny_model, tiny_prompt
from milepost.engines import generation as generation_module
from milepost.engines.transformers import driver as driver_module
from milepost.engines.transformers.sequence_layers import plain_vars
from milepost.engines.transformers.snapshot import capture_state, zero_state

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("family", "policy"),
    [
        ("qwen3_5", "dense:64"),
        ("qwen3_5", "balanced:3"),
        ("qwen3_5", "tail+junction"),
        ("qwen3_5", "learned"),
        ("mamba2", "dense:128"),
        ("jamba", "balanced:2"),
        ("gemma3", "dense:64"),
        ("gpt_oss", "tail+junction"),
        ("qwen3", "learned"),
    ],
)
def test_warm_equals_cold_bit_for_bit_across_interleaved_requests(family, policy):
    model, prompts = tiny_model(family), branching_prompts()
    warm = open_engine(model, policy=policy, max_running=3)
    assert_equal(
        warm.generate_many(prompts, max_new_tokens=5), without_cache(model, prompts, max_new_tokens=5)
    )
    assert warm.cache.statistics().reused > 0
    warm.cache.check()


def test_a_wrong_state_would_show(engine, model, monkeypatch):
    prompts = branching_prompts()[:2] * 2
    monkeypatch.setattr(
        driver_module, "capture_state", lambda cache, position: zero_state(capture_state(cache, position))
    )
    warm = [engine.generate(prompt, max_new_tokens=5) for prompt in prompts]
    with pytest.raises(AssertionError):
        assert_equal(warm, without_cache(model, prompts, max_new_tokens=5))


def test_interleaved_equals_sequential(model):
    prompts = branching_prompts()
    together = open_engine(model).generate_many(prompts, max_new_tokens=5)
    one_engine = open_engine(model)
    assert_equal(together, [one_engine.generate(prompt, max_new_tokens=5) for prompt in prompts])


def test_each_request_advances_a_cache_of_its_own(engine):
    prompt = tiny_prompt(200)[0].numpy()
    engine.generate(prompt, max_new_tokens=1)
    one, other = (engine.submit(prompt, max_new_tokens=8, ignore_end_token=True) for _ in range(2))
    for _ in range(6):
        engine.step()
    live, its = one.prompt.live, other.prompt.live
    pointers = [
        {
            tensor.data_ptr()
            for layer in cache.layers
            for tensor in plain_vars(layer).values()
            if torch.is_tensor(tensor)
        }
        for cache in (live.cache, its.cache)
    ]
    assert pointers[0]
    assert pointers[0].isdisjoint(pointers[1])
    engine.close()


@pytest.mark.parametrize(("policy", "num_states"), [("dense:64", 4), ("tail", 6)])
def test_a_budget_in_which_everything_is_evicted_all_the_time_changes_no_answer(model, policy, num_states):
    prompts = branching_prompts()
    capacity = num_states * 58_880  # of a state with one segment of KV
    warm = open_engine(model, policy=policy, capacity=capacity, max_running=3)
    answers = [*warm.generate_many(prompts, max_new_tokens=3), *warm.generate_many(prompts, max_new_tokens=3)]
    assert_equal(answers, without_cache(model, prompts, max_new_tokens=3) * 2)
    held = warm.cache.statistics()
    assert held.checkpoint_bytes + held.kv_bytes <= capacity
    assert held.num_evictions > 5
    warm.cache.check()


def test_fast_numerics_resume_inside_a_segment_and_equal_to_rounding(model, monkeypatch):
    logits = []
    monkeypatch.setattr(generation_module, "_digest", lambda seen: logits.append(seen) or "")
    warm = open_engine(model, numerics="fast", policy="dense:64", segment_tokens=256)
    prompts = branching_prompts()
    answers = [warm.generate(prompt, max_new_tokens=4) for prompt in prompts]
    num_warm = len(logits)
    cold = without_cache(model, prompts, max_new_tokens=4)
    resumed = {answer.report.reused for answer in answers}
    assert any(position % 256 for position in resumed), "the odd tail of the KV was used"
    assert all(position % 64 == 0 for position in resumed)
    for mine, theirs in zip(logits[:num_warm], logits[num_warm:], strict=True):
        assert (mine - theirs).norm() / theirs.norm() < 1e-4
    assert [a.tokens for a in answers] == [a.tokens for a in cold]
    held = warm.cache.statistics()
    store = warm.cache._store
    tails = [c.payload.tail for n in store.tree.nodes() for c in n.checkpoints if c.payload.tail is not None]
    assert tails
    assert held.checkpoint_bytes == held.num_checkpoints * warm.footprint.checkpoint_bytes + sum(
        tail.num_bytes for tail in tails
    )
    warm.cache.check()
