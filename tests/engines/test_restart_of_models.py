"""A saved model opened twice on one folder: the second process resumes from it bit for bit."""

import pytest
from tiny_engine import assert_equal, branching_prompts, open_engine, without_cache

from families import tiny_model


def bytes_on_disk(engine):
    disk = engine.tiers()[1]
    return disk.checkpoint_bytes, disk.kv_bytes


@pytest.mark.parametrize("family", ["qwen3_5", "mamba2", "qwen3"])
def test_hits_after_a_restart_answer_as_a_cold_run_does(family, tmp_path):
    path = tmp_path / "model"
    tiny_model(family).save_pretrained(path)
    prompts = branching_prompts(3)
    cold = without_cache(path, prompts, max_new_tokens=2)
    folder = tmp_path / "cache"
    with open_engine(path, cache_dir=folder) as engine:
        assert_equal([engine.generate(prompt, max_new_tokens=2) for prompt in prompts], cold)
        stored = bytes_on_disk(engine)
    assert sum(stored) > 0
    with open_engine(path, cache_dir=folder, audit=1) as engine:
        assert bytes_on_disk(engine) == stored
        warm = [engine.generate(prompt, max_new_tokens=2) for prompt in prompts]
        assert_equal(warm, cold)
        assert warm[0].reused_by_tier["disk"] > 0
        assert engine.audits.num_audits > 0
        assert engine.audits.num_mismatches == 0
        engine.cache.check()


def test_another_model_finds_nothing_there(tmp_path):
    for seed in (0, 1):
        tiny_model("qwen3_5", seed=seed).save_pretrained(tmp_path / str(seed))
    prompt = branching_prompts(1)[0]
    with open_engine(tmp_path / "0", cache_dir=tmp_path / "cache") as engine:
        engine.generate(prompt, max_new_tokens=1)
    with open_engine(tmp_path / "1", cache_dir=tmp_path / "cache") as engine:
        assert engine.generate(prompt, max_new_tokens=1).report.reused == 0
    with open_engine(tmp_path / "0", cache_dir=tmp_path / "cache") as engine:
        assert engine.generate(prompt, max_new_tokens=1).report.reused > 0
