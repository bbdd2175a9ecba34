"""``milepost recommend`` as people call it."""

import json
from pathlib import Path

import pytest
from published_models import QWEN35_4B
from typer.testing import CliRunner

from milepost.cli import app

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
    assert "vllm serve MODEL --enable-prefix-caching --mamba-cache-mode align" in output


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
