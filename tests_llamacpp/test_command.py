"""The command line on GGUF files, as a user types it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from milepost.cli.program import app


def milepost(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "milepost", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_probe_says_that_a_model_passed_and_how_clearly(gguf):
    done = milepost("probe", gguf("qwen35"), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["verdict"] == "passed"
    assert facts["resume_distance"] == facts["cut_distance"] == 0
    assert facts["lost_state_distance"] > 2 * max(1.5 * facts["rounding_distance"], 5e-3)


def test_footprint_counts_what_the_model_holds(gguf):
    done = milepost("footprint", gguf("mamba2"), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["checkpoint_bytes"] > 50_000
    assert facts["kv_bytes_per_token"] == 0


@pytest.mark.parametrize("option", [["--calibrate"], ["--dtype", "float32"]])
def test_what_cannot_apply_to_a_file_is_refused(gguf, option):
    done = milepost("footprint", gguf("mamba2"), *option)
    assert done.returncode == 1
    assert "GGUF" in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_answers_and_says_what_was_reused(gguf, tmp_path):
    text = tmp_path / "prompt.txt"
    text.write_text("the quick brown fox jumps over the lazy dog " * 30)
    done = milepost("generate", gguf("qwen35"), f"@{text}", f"@{text}", "--max-new-tokens", 4, "--json")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["tokens"] == second["tokens"]
    assert second["report"]["reused"] > 0.9 * second["report"]["num_tokens"]


def test_a_file_that_is_not_there_is_said_in_a_line(tmp_path):
    done = milepost("probe", tmp_path / "none.gguf")
    assert done.returncode == 1
    assert "none.gguf" in done.stderr
    assert "Traceback" not in done.stderr


def test_compressed_kv_is_asked_for_by_name(gguf):
    def said(command, *options):
        done = CliRunner().invoke(app, [command, str(gguf("qwen35")), *options, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    compressed = ("--key-type", "q8_0", "--value-type", "q8_0")
    plain, small = said("footprint"), said("footprint", *compressed)
    assert small["kv_bytes_per_token"] < 0.6 * plain["kv_bytes_per_token"]
    assert small["checkpoint_kv_tokens"] > 1.7 * plain["checkpoint_kv_tokens"]
    assert said("probe", *compressed)["kv_bytes"] < said("probe")["kv_bytes"]


def test_a_format_of_kv_that_there_is_not_is_said_in_a_line(gguf):
    done = milepost("generate", gguf("qwen35"), "Hello", "--value-type", "q3")
    assert done.returncode == 1
    assert "value_type='q3'; give one of f16" in done.stderr
    assert "Traceback" not in done.stderr
