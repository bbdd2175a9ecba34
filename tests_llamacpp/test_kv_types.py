"""Compressed KV: what is resumed computes the bits of what was never interrupted, at the compressed price."""

import pytest
import torch
from benchmarks.llamacpp.families import FAMILIES, Sizes
from benchmarks.llamacpp.gguf_file import write_gguf
from running import cold, keep, random_tokens, restore, run

from milepost.engines.engine import Engine
from milepost.engines.llamacpp.kv_types import KVTypes
from milepost.engines.llamacpp.opening import serve_model
from milepost.engines.llamacpp.probe import measure_resume, probe
from milepost.errors import CacheCorruptionError, ConfigurationError

# Bytes of a number: 32 of them share a scale, and some formats an offset.
BYTES = {
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
PAIRS = [("q8_0", None), ("q4_0", "q4_0"), ("f16", "iq4_nl"), ("q5_1", "q4_1"), ("f32", "q5_0")]
CASES = [("llama", "q8_0", "q8_0"), ("falcon-h1", "q8_0", "q8_0"), *(("qwen35", *pair) for pair in PAIRS)]
WITH_KV = [name for name in FAMILIES if name not in ("mamba", "mamba2", "rwkv7")]


def prompt_and_what_it_left(driver, seed):
    tokens = random_tokens(420, seed)
    live = driver.start(num_tokens=tokens.numel())
    run(driver, live, tokens[:301], (37, 131))
    kept = keep(driver, live, (64, 256))
    run(driver, live, tokens)
    driver.close(live)
    return tokens, kept


@pytest.mark.parametrize(("family", "key_type", "value_type"), CASES)
def test_what_is_resumed_computes_the_bits_of_what_was_not_interrupted(
    open_driver, family, key_type, value_type
):
    kinds = {"key_type": key_type} | ({"value_type": value_type} if value_type else {})
    driver, alone, plain = open_driver(family, **kinds), open_driver(family, **kinds), open_driver(family)
    tokens, (state, kv) = prompt_and_what_it_left(driver, 10)
    _, (foreign_state, foreign_kv) = prompt_and_what_it_left(driver, 11)
    swapped = (foreign_state, kv) if driver.transfer.memory.has_state else (state, foreign_kv)
    whole = cold(alone, tokens)

    for cuts in ((), (303,), (340, 418)):
        assert torch.equal(run(driver, restore(driver, state, kv, tokens), tokens, cuts), whole)
    # The controls: what another prompt left shows, and so does the compression itself.
    assert (run(driver, restore(driver, *swapped, tokens), tokens) - whole).abs().max() > 0.05
    assert not torch.equal(whole, cold(plain, tokens))


@pytest.mark.parametrize("family", WITH_KV)
def test_every_family_with_kv_passes_with_keys_and_values_in_eight_bits(open_driver, family):
    report = probe(open_driver(family, key_type="q8_0", value_type="q8_0"), is_strict=True)

    assert report.verdict == "passed"
    assert report.cut_distance == report.resume_distance == 0


def test_the_control_flash_attention_over_plain_values_hangs_on_the_cuts(open_driver, monkeypatch):
    # Why it is on only where values are compressed.
    assert measure_resume(open_driver("llama"), is_strict=True).verdict == "passed"
    monkeypatch.setattr(KVTypes, "wants_flash_attention", True)
    report = measure_resume(open_driver("llama"), is_strict=True)

    assert report.verdict == "refused"
    assert "cut into pieces against in one go" in report.refusal


@pytest.mark.parametrize("kind", BYTES)
def test_the_footprint_prices_the_compressed_bytes(gguf, kind):
    def footprint(**kinds):
        served = serve_model(gguf("qwen35"), numerics="strict", **kinds)
        served.driver.release()
        return served.footprint

    plain, keys = footprint(), footprint(key_type=kind)
    both = footprint(key_type=kind, value_type=kind)
    # One of its layers keeps KV, of two heads of 32 numbers.
    saved = 64 * (2 - BYTES[kind])

    assert plain.kv_bytes_per_token - keys.kv_bytes_per_token == saved
    assert plain.kv_bytes_per_token - both.kv_bytes_per_token == 2 * saved
    assert plain.checkpoint_bytes == keys.checkpoint_bytes == both.checkpoint_bytes
    assert plain.checkpoint_kv_tokens < keys.checkpoint_kv_tokens < both.checkpoint_kv_tokens


def test_an_engine_answers_alike_warm_and_cold_and_keeps_more_in_the_same_memory(gguf):
    prompts = [[*range(300, 500), *range(290, 290 + length)] for length in (40, 80, 120)]
    stored = {}
    for kinds in ({}, {"key_type": "q8_0", "value_type": "q8_0"}):
        engine = Engine.open(gguf("qwen35", "q8_0"), capacity="8MiB", **kinds)
        nothing_kept = engine.sibling(capacity="8MiB", policy="none")
        for prompt in prompts * 2:
            warm, cold_one = (
                each.generate(prompt, max_new_tokens=4, ignore_end_token=True)
                for each in (engine, nothing_kept)
            )
            assert warm.tokens == cold_one.tokens
        assert (warm.report.reused > 200, cold_one.report.reused) == (True, 0)
        stored[len(kinds)] = engine.cache.statistics().kv_bytes
    assert stored[2] < 0.6 * stored[0]


def test_kv_of_another_format_is_refused(open_driver):
    driver = open_driver("qwen35", key_type="q8_0", value_type="q8_0")
    tokens, (state, kv) = prompt_and_what_it_left(driver, 10)
    for kinds in ({}, {"key_type": "q8_0"}, {"key_type": "q8_0", "value_type": "q4_0"}):
        with pytest.raises(CacheCorruptionError, match="another number format"):
            restore(open_driver("qwen35", **kinds), state, kv, tokens)


@pytest.mark.parametrize("name", ["key_type", "value_type"])
@pytest.mark.parametrize("kind", ["q6_K", "fp8", "Q8_0", "", 8])
def test_a_format_that_llama_cpp_does_not_keep_is_named(gguf, name, kind):
    with pytest.raises(ConfigurationError, match=f"{name}={kind!r}; give one of f16, f32, q8_0"):
        Engine.open(gguf("llama"), **{name: kind})


def test_heads_that_fit_no_block_are_named(tmp_path):
    # Four heads of 48.
    path = write_gguf(tmp_path / "narrow.gguf", "llama", sizes=Sizes(width=192))

    assert Engine.open(path).generate([300, 301], max_new_tokens=1).tokens
    for name, kind in (("key_type", "q8_0"), ("value_type", "q4_0")):
        with pytest.raises(ConfigurationError, match=f"{name}='{kind}' takes blocks of 32 .* heads have 48"):
            Engine.open(path, **{name: kind})


def test_a_model_without_kv_takes_any_format_and_none_is_kept(gguf):
    served = serve_model(gguf("mamba2"), numerics="strict", key_type="q8_0", value_type="q8_0")

    assert served.footprint.kv_bytes_per_token == 0
