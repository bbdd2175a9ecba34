"""Purely recurrent models keep no KV, so memory is told in bytes; models of attention alone keep no state.

Every command says what is true of them, and its JSON is JSON: no Infinity and no NaN.
"""

import json

import pytest
from typer.testing import CliRunner

import families
from milepost.cli.program import app
from milepost.errors import CapacityError
from milepost.footprint import Footprint
from milepost.recommend import nominal_layout
from milepost.simulator import Setting, SimulationResult, simulate
from milepost.traces import open_trace

TRACE = "synthetic:chat,requests=12,seed=1"
WITHOUT_KV = ["mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"]
COMMANDS = {
    "footprint": [],
    "simulate": ["--capacity", "8MiB", "--policy", "learned", "--policy", "vllm"],
    "sweep": ["--capacity", "8MiB", "--policy", "learned", "--jobs", "1"],
    "recommend": ["--capacity", "8MiB", "--engine", "milepost", "--engine", "vllm"],
}


def not_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def folder_of(family: str, tmp_path) -> str:
    families.tiny_model(family).config.save_pretrained(tmp_path)
    return str(tmp_path)


def run(command: str, model: str, tmp_path, *options: str) -> str:
    """Return what a command prints of a model."""
    subject = [model] if command == "footprint" else [TRACE, "--model", model]
    if command == "sweep":
        options = (*options, "--output", str(tmp_path / "sweep.jsonl"))
    done = CliRunner().invoke(app, [command, *subject, *COMMANDS[command], *options])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("family", [*WITHOUT_KV, "qwen3", "qwen3_5"])
def test_every_command_prints_numbers_and_json_that_anyone_can_read(family, command, tmp_path):
    model = folder_of(family, tmp_path)
    text = run(command, model, tmp_path)
    assert not {"inf", "nan", "None"} & set(text.replace(",", " ").replace("(", " ").split())
    json.loads(run(command, model, tmp_path, "--json"), parse_constant=not_json)


@pytest.mark.parametrize("family", WITHOUT_KV)
def test_without_kv_memory_is_told_in_bytes(family, tmp_path):
    model = folder_of(family, tmp_path)
    facts = json.loads(run("footprint", model, tmp_path, "--json"))
    assert (facts["kv_bytes_per_token"], facts["checkpoint_kv_tokens"]) == (0, None)
    assert facts["checkpoint_bytes"] > 0
    learned, _ = json.loads(run("simulate", model, tmp_path, "--json"))
    assert learned["capacity_bytes"] == 8 << 20
    assert learned["checkpoint_bytes"] == facts["checkpoint_bytes"]
    assert 0 < learned["peak_bytes"] <= 8 << 20
    assert learned["peak_bytes"] % learned["checkpoint_bytes"] == 0, "nothing is stored but states"
    assert learned["capacity_kv_tokens"] is learned["checkpoint_kv_tokens"] is None
    advice = json.loads(run("recommend", model, tmp_path, "--json"))
    assert (advice["memory_bytes"], advice["capacity_kv_tokens"]) == (8 << 20, None)
    table = run("simulate", model, tmp_path)
    assert "8.39 MB for states" in table
    assert "there is no KV" in table
    assert "tokens of KV" not in table + run("recommend", model, tmp_path)


def test_without_kv_as_many_states_fit_as_the_bytes_hold():
    footprint = Footprint(checkpoint_bytes=1 << 20, kv_bytes_per_token=0)
    requests = list(open_trace("synthetic:chat,requests=40,seed=1"))
    least, ample = (
        simulate(requests, policy="tail", capacity_kv_tokens=units, checkpoint_kv_tokens=footprint)
        for units in (64, 64_000)
    )
    # 64 times 16 KiB hold one state.
    assert least.peak_kv_tokens == 64
    assert least.reused_tokens < ample.reused_tokens
    assert ample.checkpoint_kv_tokens == 64


def test_without_kv_tokens_of_kv_are_no_measure_of_memory(tmp_path):
    model = folder_of("mamba2", tmp_path)
    for command in ("simulate", "sweep", "recommend", "report"):
        done = CliRunner().invoke(app, [command, TRACE, "--model", model, "--capacity-kv-tokens", "400k"])
        assert done.exit_code == 2
        said = " ".join(done.stderr.split())
        assert "keeps none" in said
        assert "give --capacity SIZE, such as 4GiB" in said


def test_without_kv_a_budget_below_one_state_is_refused_in_bytes():
    footprint = Footprint(checkpoint_bytes=1 << 20, kv_bytes_per_token=0)
    setting = Setting(policy="tail", capacity_kv_tokens=63, footprint=footprint)
    with pytest.raises(CapacityError, match=r"1,032,192 bytes cannot hold one checkpoint of 1,048,576"):
        setting.build_cache(key_tokens=1, grid=64)


def test_a_result_without_kv_reads_back_from_its_json():
    footprint = Footprint(checkpoint_bytes=1_000_001, kv_bytes_per_token=0)
    result = simulate(
        open_trace(TRACE), policy="tail", capacity_kv_tokens=500, checkpoint_kv_tokens=footprint
    )
    written = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert SimulationResult.from_json(written) == result


def test_the_report_of_a_model_without_kv_has_no_tokens_of_it(tmp_path):
    model = folder_of("mamba2", tmp_path / "model")
    options = [
        "--capacity",
        "2MiB",
        "--capacity",
        "8MiB",
        "--policy",
        "tail",
        "--output",
        str(tmp_path / "report"),
    ]
    done = CliRunner().invoke(app, ["report", TRACE, "--model", model, *options])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "tokens of KV" not in page
    assert "KV tokens" not in page
    assert "there is no KV" in page


def test_without_states_there_is_no_price_of_one(tmp_path):
    model = folder_of("qwen3", tmp_path)
    assert json.loads(run("footprint", model, tmp_path, "--json"))["checkpoint_kv_tokens"] == 0
    for command in ("simulate", "recommend"):
        assert "there is no state: KV alone is resumed from" in " ".join(
            run(command, model, tmp_path).split()
        )


def test_a_layout_is_finite_whatever_a_model_keeps():
    for states, kv in ((170_000_000, 0), (0, 114_688), (1 << 20, 1)):
        layout = nominal_layout(Footprint(checkpoint_bytes=states, kv_bytes_per_token=kv))
        assert layout.block_tokens == 16 or kv == 1
        assert layout.pages_per_state >= 1
