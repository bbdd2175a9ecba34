"""Opening a GGUF file: what it needs to be, and what is said where it is not."""

import os
import shutil
from pathlib import Path

import pytest
from benchmarks.llamacpp.gguf_file import write_gguf

from milepost.engines.engine import Engine
from milepost.engines.llamacpp.identity import files_digest, model_files
from milepost.engines.llamacpp.opening import open_driver, serve_model
from milepost.errors import ConfigurationError, InvalidRequestError, ModelLoadError, UnsupportedModelError


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match=r"nothing\.gguf cannot be read"):
        serve_model(tmp_path / "nothing.gguf", numerics="strict")


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 no model"])
def test_what_is_no_gguf_file_is_named(tmp_path, content):
    path = tmp_path / "other.gguf"
    path.write_bytes(content)

    with pytest.raises(ModelLoadError, match="is no GGUF file"):
        serve_model(path, numerics="strict")


def test_half_a_file_is_an_error_with_a_remedy(gguf, tmp_path):
    path = tmp_path / "half.gguf"
    path.write_bytes(gguf("qwen35").read_bytes()[:500_000])

    with pytest.raises(ModelLoadError, match="download it again"):
        serve_model(path, numerics="strict")


@pytest.mark.parametrize("option", [{"dtype": "bfloat16"}, {"device": "cpu"}, {"revision": "main"}])
def test_options_that_cannot_apply_are_refused(gguf, option):
    (name,) = option
    with pytest.raises(ConfigurationError, match=f"{name}=.* cannot apply to a GGUF file"):
        serve_model(gguf("llama"), numerics="strict", **option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"numerics": "exact"}, "numerics='exact'; give one of strict, fast"),
        ({"segment_tokens": 1}, "segment_tokens"),
        ({"tokenizer": object()}, "has no encode and decode"),
        ({"generation_config": {"num_beams": 4}}, "num_beams"),
    ],
)
def test_options_out_of_their_rules_are_refused(gguf, option, message):
    with pytest.raises(ConfigurationError, match=message):
        serve_model(gguf("llama"), **{"numerics": "strict", **option})


def test_strict_numerics_have_one_row_a_call(gguf):
    with pytest.raises(ConfigurationError, match=r"decode_rows=4; llama.cpp's bits hang"):
        Engine.open(gguf("mamba2"), decode_rows=4)


def test_the_footprint_is_the_bytes_of_real_payloads(gguf):
    served = serve_model(gguf("qwen35"), numerics="strict", segment_tokens=64)
    live = served.driver.start(num_tokens=200)
    from running import random_tokens

    served.driver.advance(live, random_tokens(200))
    state, piece = served.driver.capture(live), served.driver.kv(live, 64, 128)

    assert served.footprint.checkpoint_bytes == state.num_bytes
    assert 0 <= 64 * served.footprint.kv_bytes_per_token - piece.num_bytes < 64


@pytest.mark.parametrize("family", ["mamba", "rwkv7"])
def test_a_model_without_kv_costs_none(gguf, family):
    footprint = serve_model(gguf(family), numerics="strict").footprint

    assert footprint.kv_bytes_per_token == 0
    assert footprint.checkpoint_bytes > 0


def test_a_file_that_was_written_to_serves_no_more_states(gguf, tmp_path):
    path = shutil.copy(gguf("mamba2"), tmp_path / "mine.gguf")
    engine = Engine.open(path)
    engine.generate(list(range(300, 400)), max_new_tokens=1)
    os.utime(path, ns=(1, 1))

    with pytest.raises(UnsupportedModelError, match="was changed or replaced"):
        engine.generate(list(range(300, 400)), max_new_tokens=1)


def test_a_file_that_was_deleted_lives_on_in_memory(gguf, tmp_path):
    path = Path(shutil.copy(gguf("mamba2"), tmp_path / "mine.gguf"))
    engine = Engine.open(path)
    before = engine.generate(list(range(300, 400)), max_new_tokens=1)
    path.unlink()

    assert engine.generate(list(range(300, 400)), max_new_tokens=1).tokens == before.tokens


def test_a_model_in_several_files_is_all_of_them(tmp_path):
    parts = [tmp_path / f"large-{part:05}-of-00003.gguf" for part in (1, 2, 3)]
    for part in parts:
        part.write_bytes(part.name.encode())
    digest = files_digest(model_files(parts[0]))
    parts[2].write_bytes(b"other")

    assert model_files(parts[0]) == parts
    assert model_files(tmp_path / "small.gguf") == [tmp_path / "small.gguf"]
    assert files_digest(model_files(parts[0])) != digest


def test_a_large_file_is_digested_at_its_ends_and_in_between(tmp_path):
    path = tmp_path / "large.gguf"
    digests = set()
    for place in (None, 0, 40 << 20, (80 << 20) - 1):
        with path.open("wb") as file:
            file.truncate(80 << 20)
            if place is not None:
                file.seek(place // 4096 * 4096 if place else 0)
                file.write(b"x")
        digests.add(files_digest([path]))

    assert len(digests) == 4


def test_models_of_other_weights_have_other_digests(gguf):
    owners = {open_driver(gguf("mamba2", seed=seed), is_strict=True)[0].owner for seed in (0, 1)}
    kinds = {open_driver(gguf("mamba2"), is_strict=True, key_type=kind)[0].owner for kind in ("f16", "f32")}

    assert len(owners) == len(kinds) == 2


def test_invalidate_forgets_all(gguf):
    engine = Engine.open(gguf("mamba2"))
    prompt = list(range(300, 500))
    engine.generate(prompt, max_new_tokens=1)
    assert engine.generate(prompt, max_new_tokens=1).report.reused > 0

    engine.invalidate()

    assert engine.generate(prompt, max_new_tokens=1).report.reused == 0


def test_sampling_that_the_file_recommends_holds(tmp_path):
    says = {"general.sampling.temp": 0.5, "general.sampling.top_k": 3}
    engine = Engine.open(write_gguf(tmp_path / "drawn.gguf", "mamba2", says=says))
    prompt = list(range(300, 340))
    answers = {engine.generate(prompt, max_new_tokens=6, seed=seed).tokens for seed in range(6)}
    greedy = {engine.generate(prompt, max_new_tokens=6, seed=seed, temperature=0).tokens for seed in range(3)}

    assert len(answers) > 1
    assert len(greedy) == 1


def test_a_prompt_longer_than_the_context_is_refused(tmp_path):
    engine = Engine.open(write_gguf(tmp_path / "short.gguf", "llama", says={"llama.context_length": 512}))

    with pytest.raises(InvalidRequestError, match="the model's context 512"):
        engine.generate([300] * 512, max_new_tokens=1)
    answer = engine.generate(
        [300 + index % 200 for index in range(500)], max_new_tokens=64, ignore_end_token=True
    )
    assert len(answer.tokens) == 12
    assert answer.is_cut_by_context
