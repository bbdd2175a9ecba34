"""Whose payload is it? Planted under the wrong key through a real engine, it is a miss and never a guess."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from families import tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.tokens import as_tokens

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)

ONE, OTHER = (tiny_prompt(200, seed=seed)[0].numpy() for seed in (1, 2))


@pytest.fixture(scope="module")
def models():
    return {family: tiny_model(family) for family in ("qwen3_5", "qwen3")}


def open_engine(model, **options) -> Engine:
    return Engine.open(model, **{"capacity": "64MiB", "segment_tokens": 64, "policy": "dense:64"} | options)


def path_of(engine, prompt, tenant=""):
    tokens = as_tokens(prompt)
    namespace = engine._recall.claim(tokens, tenant=tenant).namespace
    return engine.cache._store.tree.match(tokens, tenant=namespace).path


def checkpoints(engine, prompt, tenant=""):
    path = path_of(engine, prompt, tenant)
    return {checkpoint.position: checkpoint for node in path for checkpoint in node.checkpoints}


def kv(engine, prompt):
    """The list that holds the KV of a prompt that shares nothing with any other."""
    (node,) = path_of(engine, prompt)
    return node.kv


def served(model, *prompts, **options) -> Engine:
    engine = open_engine(model, **options)
    for prompt in prompts:
        engine.generate(prompt, max_new_tokens=1)
    return engine


def assert_resumes(engine, model, prompt, reused):
    cold = open_engine(model, policy="none").generate(prompt, max_new_tokens=4)
    warm = engine.generate(prompt, max_new_tokens=4)
    assert warm.prompt_logits_digest == cold.prompt_logits_digest
    assert warm.tokens == cold.tokens
    assert warm.report.reused == reused
    engine.cache.check()


def test_untouched_payloads_are_hits(models):
    assert_resumes(served(models["qwen3_5"], ONE, OTHER), models["qwen3_5"], ONE, 192)


def test_without_the_second_opinion_a_wrong_state_would_be_believed(models, monkeypatch):
    engine = served(models["qwen3_5"], ONE, OTHER)
    checkpoints(engine, ONE)[192].payload = checkpoints(engine, OTHER)[192].payload
    monkeypatch.setattr("milepost.engines.recall.belongs_to", lambda lease, digests: True)
    with pytest.raises(AssertionError):
        assert_resumes(engine, models["qwen3_5"], ONE, 192)


def test_another_prompts_state_is_a_miss_and_the_next_shallower_one_serves(models):
    engine = served(models["qwen3_5"], ONE, OTHER)
    checkpoints(engine, ONE)[192].payload = checkpoints(engine, OTHER)[192].payload
    assert_resumes(engine, models["qwen3_5"], ONE, 128)
    assert_resumes(engine, models["qwen3_5"], ONE, 192)  # captured anew on the way


def test_the_same_prompts_state_at_another_position_is_a_miss(models):
    engine = served(models["qwen3_5"], ONE)
    held = checkpoints(engine, ONE)
    held[192].payload = held[128].payload
    assert_resumes(engine, models["qwen3_5"], ONE, 128)
    held = checkpoints(engine, ONE)
    held[192].payload = replace(held[128].payload, digest=held[192].payload.digest)
    assert_resumes(engine, models["qwen3_5"], ONE, 128)


def test_something_that_is_no_state_at_all_is_a_miss(models):
    engine = served(models["qwen3_5"], ONE)
    checkpoints(engine, ONE)[192].payload = np.zeros(3)
    assert_resumes(engine, models["qwen3_5"], ONE, 128)


@pytest.mark.parametrize(("segment", "reused"), [(0, 0), (1, 64), (2, 128)])
def test_another_prompts_kv_is_a_miss_from_there_on(models, segment, reused):
    engine = served(models["qwen3_5"], ONE, OTHER)
    kv(engine, ONE)[segment] = kv(engine, OTHER)[segment]
    assert_resumes(engine, models["qwen3_5"], ONE, reused)


@pytest.mark.parametrize("change", [{"numerics": "fast"}, {"segment_tokens": 128}])
def test_payloads_of_an_engine_with_other_numerics_are_misses(models, change):
    ours = served(models["qwen3_5"], ONE)
    theirs = served(models["qwen3_5"], ONE, **change)
    assert ours._served.fingerprint != theirs._served.fingerprint
    checkpoints(ours, ONE)[128].payload = checkpoints(theirs, ONE)[128].payload
    assert_resumes(ours, models["qwen3_5"], ONE[:150], 64)


def test_another_tenants_payloads_are_misses(models):
    engine = open_engine(models["qwen3_5"])
    for tenant in ("", "other"):
        engine.generate(ONE, max_new_tokens=1, tenant=tenant)
    checkpoints(engine, ONE)[192].payload = checkpoints(engine, ONE, tenant="other")[192].payload
    assert_resumes(engine, models["qwen3_5"], ONE, 128)


def test_engines_share_a_fingerprint_where_the_model_is_the_same_and_else_do_not(models):
    def fingerprint(change=lambda model: None):
        model = tiny_model("qwen3_5")
        change(model)
        return open_engine(model)._served.fingerprint

    def tune(model):
        model.lm_head.weight.data *= 1.01

    def attend(model):
        model.set_attn_implementation("eager")

    def commit(model):
        model.config._commit_hash = "0123abcd"

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), *map(fingerprint, (tune, attend, commit))}) == 4


def test_what_another_request_holds_pinned_is_passed_by_and_not_asked_for_again(models):
    engine = served(models["qwen3_5"], ONE, OTHER)
    with engine._recall.acquire(engine._recall.claim(as_tokens(ONE), tenant="")):
        checkpoints(engine, ONE)[192].payload = checkpoints(engine, OTHER)[192].payload
        assert_resumes(engine, models["qwen3_5"], ONE, 128)


def test_wrong_kv_of_a_model_without_state_is_passed_by_although_deeper_anchors_keep_it(models):
    engine = served(models["qwen3"], ONE, OTHER, segment_tokens=64)
    kv(engine, ONE)[0] = kv(engine, OTHER)[0]
    assert_resumes(engine, models["qwen3"], ONE[:150], 0)


def test_fast_numerics_fall_back_to_a_checkpoint_inside_the_same_segment(models):
    engine = served(models["qwen3_5"], ONE, OTHER, numerics="fast", segment_tokens=256)
    checkpoints(engine, ONE)[192].payload = checkpoints(engine, OTHER)[192].payload
    assert engine.generate(ONE, max_new_tokens=2).report.reused == 128
