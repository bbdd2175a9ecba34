"""``milepost recommend`` as people call it."""

import json
from pathlib import Path

import pytest
from published_models import QWEN35_4B
from typer.testing import CliRunner

from families import tiny_model
from milepost.cli.options import ENGINE_NAMES
from milepost.cli.program import app

CHAT = "synthetic:chat,requests=30,seed=1"


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["recommend", *words])
    return result.exit_code, result.stdout, result.stderr if result.exit_code else ""


def test_a_table_and_a_command_to_copy() -> None:
    code, output, _ = run(
        CHAT, "--checkpoint-kv-tokens", "1536", "--capacity-kv-tokens", "200k", "--engine", "vllm"
    )
    assert code == 0
    assert "regret" in output
    assert "vllm serve MODEL --enable-prefix-caching --prefix-cache-retention-interval 0" in output


def test_json_for_scripts_with_a_models_costs_and_the_memory(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(QWEN35_4B), encoding="utf-8")
    code, output, _ = run(CHAT, "--model", str(config), "--capacity", "8GiB", "--engine", "vllm", "--json")
    assert code == 0
    facts = json.loads(output)
    assert facts["cost_unit"] == "flops"
    assert facts["model"] == str(tmp_path)
    assert facts["memory_bytes"] == pytest.approx(8 << 30, rel=1e-4)
    (vllm,) = facts["engines"]
    assert vllm["grid"] == pytest.approx(528, abs=16)
    assert f"vllm serve {tmp_path}" in vllm["instructions"]["commands"][0]


def test_the_block_that_vllm_prints_can_be_given() -> None:
    words = ["--checkpoint-kv-tokens", "1536", "--capacity-kv-tokens", "200k", "--engine", "vllm", "--json"]
    _, output, _ = run(CHAT, *words, "--block-size", "1056", "--max-requests", "10")
    facts = json.loads(output)
    assert facts["num_requests"] == 10
    assert facts["engines"][0]["grid"] == 1056


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say what a checkpoint costs"),
        (("--checkpoint-kv-tokens", "1536"), "say how much memory there is"),
        (("--checkpoint-kv-tokens", "1536", "--capacity", "4GiB"), "--capacity is in bytes"),
        (("--engine", "vlm"), "'vlm' is unknown"),
        (("--capacity", "1GiB", "--capacity-kv-tokens", "1k"), "not both"),
        (("--calibrate",), "--calibrate measures a --model"),
        (("--max-requests", "0"), "--max-requests"),
    ],
)
def test_wrong_usage_exits_with_2(words: tuple[str, ...], message: str) -> None:
    code, _, errors = run(CHAT, *words)
    assert code == 2
    assert message.replace(" ", "") in "".join(errors.replace("│", "").split())


def test_an_unreadable_log_is_an_error_of_its_own(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        [
            "recommend",
            str(tmp_path / "missing.jsonl"),
            "--checkpoint-kv-tokens",
            "1536",
            "--capacity-kv-tokens",
            "100k",
        ],
    )
    assert result.exit_code == 1
    assert "missing.jsonl" in str(result.exception)


def test_the_engine_with_least_left_to_compute_leads_the_table() -> None:
    words = ["--checkpoint-kv-tokens", "1536", "--capacity-kv-tokens", "200k", "--max-requests", "30"]
    _, output, _ = run(CHAT, *words)
    _, listed, _ = run(CHAT, *words, "--json")
    engines = json.loads(listed)["engines"]
    assert [each["engine"] for each in engines] == list(ENGINE_NAMES)
    by_cost = sorted(engines, key=lambda each: each["prefill_cost"])
    places = [output.index(each["title"] + " ") for each in by_cost]
    assert places == sorted(places)
    assert max(map(len, output[: output.index("best of")].splitlines())) <= 80
    assert "\u2026" not in output, "nothing is cut"


def test_a_log_without_messages_says_what_could_not_be_simulated(tmp_path: Path) -> None:
    log = tmp_path / "blocks.jsonl"
    lines = [{"hash_ids": [1, 2, 10 + i], "input_length": 1_500, "block_size": 512} for i in range(8)]
    log.write_text("".join(json.dumps({"timestamp": i, **line}) + "\n" for i, line in enumerate(lines)))
    code, output, _ = run(
        str(log), "--checkpoint-kv-tokens", "1536", "--capacity-kv-tokens", "200k", "--engine", "mlx"
    )
    assert code == 0
    assert "not simulated" in output
    assert "mlx_lm.server --model MODEL" in output


def test_calibrated_costs_are_seconds_of_this_machine(tmp_path: Path) -> None:
    model = tiny_model("qwen3_5")
    model.save_pretrained(tmp_path / "model")
    code, output, errors = run(
        CHAT,
        *("--model", str(tmp_path / "model"), "--capacity", "4MiB", "--calibrate", "--json"),
        *("--engine", "milepost", "--max-requests", "20"),
    )
    assert code == 0, errors
    facts = json.loads(output)
    (engine,) = facts["engines"]
    assert facts["cost_unit"] == "seconds"
    # Twenty short prompts through a model of a few layers: more than no time, less than minutes.
    assert 0.0 < facts["total_cost"] < 60.0
    assert engine["prefill_cost"] + engine["saved_seconds"] == pytest.approx(facts["total_cost"])
    assert engine["saved_seconds"] / facts["total_cost"] == pytest.approx(
        engine["outcome"]["saved_cost_fraction"]
    )
