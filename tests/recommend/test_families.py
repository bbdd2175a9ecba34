"""Each engine is advised on for the models that it serves, with the caches that it has for them."""

import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from published_models import QWEN35_4B
from typer.testing import CliRunner

from families import tiny_config
from milepost.cli.program import app
from milepost.footprint import Footprint
from milepost.footprint.families import known_model_types
from milepost.recommend import (
    ENGINES,
    EngineAdvice,
    ModelFamily,
    family_of,
    layout_of,
    nominal_layout,
    recommend,
)
from milepost.traces import open_trace

CHAT = "synthetic:chat,requests=8,seed=1"
STATE_FLAGS = (
    *("mamba", "hybrid-cache", "--scheduler-cls", "--prefix-match-unit", "--prefix-cache-retention-interval"),
    *("--max-num-batched-tokens", "--ctx-checkpoints", "--checkpoint-min-step"),
)
ATTENTION = ("qwen3", "gemma3", "gpt_oss")
# As the engines' own lists have it, read once more for this table.
MISSING = {
    "milepost-vllm": {"xlstm", "rwkv", "recurrent_gemma", "zamba", "bamba", "minimax"},
    "vllm": {"xlstm", "rwkv", "recurrent_gemma", "zamba", "bamba", "minimax", "lfm3", "lara_mini"},
    "sglang": {"xlstm", "rwkv", "jamba", "zamba2", "bamba", "minimax", "olmo_hybrid", "recurrent_gemma"},
    "milepost-sglang": {
        "xlstm",
        "rwkv",
        "jamba",
        "zamba2",
        "bamba",
        "minimax",
        "olmo_hybrid",
        "recurrent_gemma",
    },
    "tensorrt": {"xlstm", "rwkv", "mamba2", "jamba", "zamba2", "bamba", "lfm2", "falcon_h1"},
    "llamacpp": {"xlstm", "rwkv", "recurrent_gemma", "zamba2", "olmo_hybrid"},
    "mlx": {"xlstm", "rwkv", "zamba2", "bamba", "minimax"},
    "milepost": set(),
}


def config_of(name: str) -> dict:
    if name == "qwen3_5_4b":
        return {"model_type": "qwen3_5", "text_config": QWEN35_4B}
    return tiny_config(name).to_dict() | {"dtype": "float32"}


@cache
def advised(name: str) -> dict[str, EngineAdvice]:
    config = config_of(name)
    footprint = Footprint.from_config(config)
    advice = recommend(
        open_trace(CHAT),
        footprint=footprint,
        capacity_kv_tokens=(4 << 30) // (footprint.kv_bytes_per_token or 16_384),
        memory_bytes=4 << 30,
        model="MODEL",
        layout=layout_of(config) or nominal_layout(footprint),
        family=family_of(config),
    )
    return {each.engine: each for each in advice.engines}


def printed(engine: EngineAdvice) -> str:
    files = (content for _, content in engine.instructions.files)
    return "\n".join((*engine.instructions.commands, *files))


@pytest.mark.parametrize("name", ATTENTION)
def test_a_model_without_recurrent_states_gets_no_flag_for_states(name: str) -> None:
    for engine in advised(name).values():
        for flag in STATE_FLAGS:
            assert flag not in printed(engine), engine.engine
        assert engine.instructions.notes


def test_the_control_has_them() -> None:
    text = "\n".join(map(printed, advised("qwen3_5_4b").values()))
    for flag in ("mamba", "--scheduler-cls", "--prefix-cache-retention-interval", "--ctx-checkpoints"):
        assert flag in text


@pytest.mark.parametrize("name", ["xlstm", "rwkv", "jamba", "zamba2"])
def test_a_family_that_an_engine_has_not_gets_no_command_but_is_told_so(name: str) -> None:
    for engine in advised(name).values():
        if name in MISSING[engine.engine]:
            assert not engine.is_served
            assert printed(engine) == ""
            assert engine.outcome is None
            assert f"no models of type {name};" in engine.instructions.notes[0]
        else:
            assert engine.is_served
            assert printed(engine) or "nothing to plan" in engine.instructions.notes[0]


def test_every_family_that_an_engine_is_said_to_have_is_one_that_is_known() -> None:
    for engine in ENGINES.values():
        assert engine.families is None or engine.families <= set(known_model_types())


def test_the_type_that_engines_go_by_is_the_outer_one() -> None:
    wrapped = {"model_type": "qwen3_5", "text_config": QWEN35_4B}
    assert family_of(wrapped) == ModelFamily("qwen3_5", is_recurrent=True)
    assert family_of(QWEN35_4B) == ModelFamily("qwen3_5_text", is_recurrent=True)
    assert family_of(config_of("gpt_oss")) == ModelFamily("gpt_oss", is_recurrent=False)


def test_sglang_is_given_the_strategy_that_it_takes_for_the_family() -> None:
    assert "--mamba-radix-cache-strategy extra_buffer" in printed(advised("falcon_h1")["sglang"])
    for name in ("lfm2", "mamba2"):
        assert "--mamba" not in printed(advised(name)["sglang"])
        assert advised(name)["sglang"].instructions.notes[0].startswith("not simulated: ")


@pytest.mark.parametrize("name", ["lfm2", "mamba2", "qwen3_5_4b", "falcon_h1", "jamba"])
def test_vllm_is_never_given_a_budget_that_a_server_starves_on(name: str) -> None:
    # Below --max-num-seqs, up to 1,024 by default, it does not even start.
    for trace in ("synthetic:uniform,requests=30,seed=2,length=6000", CHAT):
        config = config_of(name)
        footprint = Footprint.from_config(config)
        family, layout = family_of(config), layout_of(config) or nominal_layout(footprint)
        advice = recommend(
            open_trace(trace),
            footprint=footprint,
            capacity_kv_tokens=(4 << 30) // (footprint.kv_bytes_per_token or 16_384),
            layout=layout,
            family=family,
            engines=["vllm"],
        )
        (command,) = advice.engines[0].instructions.commands
        for budget in re.findall(r"--max-num-batched-tokens (\d+)", command):
            assert int(budget) >= 2048
            assert int(budget) % layout.block_tokens == 0


@pytest.mark.parametrize("name", ["qwen3_5_4b", "lfm2", "qwen3"])
def test_the_number_of_caches_of_mlx_is_a_count_of_caches_that_fit(name: str) -> None:
    (command,) = advised(name)["mlx"].instructions.commands
    words = shlex.split(command)
    footprint = Footprint.from_config(config_of(name))
    shortest = min(request.num_tokens for request in open_trace(CHAT))
    each = footprint.checkpoint_bytes_at(shortest) + shortest * footprint.kv_bytes_per_token
    if "--prompt-cache-size" in words:
        count = int(words[words.index("--prompt-cache-size") + 1])
        assert count == max(10, (4 << 30) // each)
    else:
        assert name == "qwen3", "trimmed to what is shared, and not simulated"
    assert words[words.index("--prompt-cache-bytes") + 1] == str(4 << 30)


def test_memory_is_printed_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN35_4B | {"num_key_value_heads": 3}))
    words = ["recommend", CHAT, "--model", str(tmp_path), "--capacity", "4GiB", "--json"]
    facts = json.loads(CliRunner().invoke(app, words).stdout)
    assert facts["memory_bytes"] == 4 << 30
    commands = {each["engine"]: each["instructions"] for each in facts["engines"]}
    assert commands["milepost"]["commands"][0].endswith("--capacity 4GiB")
    assert f"--kv-cache-memory-bytes {4 << 30}" in commands["vllm"]["commands"][0]
    assert f"max_gpu_total_bytes: {4 << 30}" in commands["tensorrt"]["files"]["trtllm.yaml"]
