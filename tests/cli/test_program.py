"""The command line: it teaches, it refuses in one line, and its exit codes mean something."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

import milepost
from milepost.cli import main
from milepost.cli.program import app
from milepost.embedded import embedded_folder

SMALL = ["demo", "--questions", "2", "--max-new-tokens", "1", "--policy", "none", "--policy", "learned"]


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.jsonl"
    text = " ".join(f"word{number}" for number in range(150))
    path.write_text(json.dumps({"document": text, "title": "words"}))
    return path


def run(*arguments, monkeypatch, capsys) -> tuple[int, str, str]:
    """Run ``main`` as the console script does."""
    torch.set_num_threads(1)
    monkeypatch.setattr(sys, "argv", ["milepost", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def environment() -> dict[str, str]:
    """Ours, found from any folder, on one thread: several processes of a test run share the cores."""
    return os.environ | {"PYTHONPATH": str(Path(milepost.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def run_process(*arguments, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from milepost.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, env=environment(), **options
    )


def test_help_says_what_it_does_and_what_to_try():
    help_text = CliRunner().invoke(app, ["demo", "--help"]).output
    for taught in ("--policy", "--capacity", "--json", "512MB", "Try:", "milepost demo --model"):
        assert taught in help_text
    overview = CliRunner().invoke(app, []).output
    assert "demo" in overview
    assert "Sparse prefix caching" in overview


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--polcy", "none"], "--policy"),
        (["demo", "--questions", "none"], "--questions"),
        (["demo", "--questions", "0"], "--questions"),
        (["demmo"], "demo"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_option(arguments, says):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert says in result.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--policy", "lerned"], "did you mean 'learned'?"),
        (["--capacity", "5"], "give at least"),
        (["--documents", "missing.txt"], "missing.txt is not a file"),
        (["--model", "/no/such/folder"], "there is no folder"),
        (["--numerics", "exact"], "give one of strict, fast"),
    ],
)
def test_what_is_refused_exits_with_1_and_one_line(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, stderr = run("demo", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1
    line = stderr.strip()
    assert line.startswith("Error: ")
    assert says in line.replace("\n", " ")
    assert "Traceback" not in stderr


def test_one_process_from_end_to_end_prints_one_json_object(documents, tmp_path):
    done = run_process(*SMALL, "--documents", documents, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert [policy["policy"] for policy in numbers["policies"]] == ["none", "learned"]
    assert numbers == json.loads((tmp_path / "out" / "demo.json").read_text())
    assert "outputs" in done.stderr, "the table is for the reader, beside the JSON"


def test_generate_says_on_stderr_what_the_cache_holds_and_prints_an_object_for_each_prompt(
    monkeypatch, capsys
):
    arguments = ["generate", "embedded", "one", "two", "--max-new-tokens", "2"]
    code, out, err = run(*arguments, "--json", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    lengths = [len(tokenizer.encode(text)) for text in ("one", "two")]
    assert [json.loads(line)["report"]["num_tokens"] for line in out.splitlines()] == lengths
    assert "one checkpoint of qwen3_5_text takes" in err
    assert "a JSON object a line" in " ".join(CliRunner().invoke(app, ["generate", "--help"]).output.split())


def test_a_prompt_that_is_no_unicode_is_refused(monkeypatch, capsys):
    code, _, err = run("generate", "embedded", "caf\udce9", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 1
    assert "half of a surrogate pair" in err.replace("\n", " ")


def test_a_short_prompt_can_be_priced_in_seconds_too(monkeypatch, capsys):
    code, out, _ = run(
        "footprint", "embedded", "--tokens", "64", "--calibrate", monkeypatch=monkeypatch, capsys=capsys
    )
    assert code == 0
    assert "prefill_seconds" in out


def test_an_error_of_a_process_is_one_line(tmp_path):
    done = run_process("demo", "--capacity", "potatoes", cwd=tmp_path)
    assert (done.returncode, done.stdout.count("Traceback")) == (1, 0)
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .startswith("Error: ConfigurationError: 'potatoes' is not an amount")
    )


def _press_ctrl_c(process: subprocess.Popen[str]) -> str:
    """Press as a person does, again if nothing happens: a library's callback from C may swallow one."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.communicate()[0]


@pytest.mark.parametrize("when", ["at the start", "in the work"])
def test_ctrl_c_exits_with_130_and_no_traceback(documents, tmp_path, when):
    command = [
        sys.executable,
        "-u",
        "-c",
        # A shell's background job starts with Ctrl-C ignored, and hands that on to whatever it starts.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from milepost.cli import main; main()",
        "demo",
        "--questions",
        "5",
    ]
    command += ["--max-new-tokens", "2000", "--documents", str(documents), "--output", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    seen = ""
    until = "Opening the model" if when == "at the start" else "sessions"
    while until not in seen:
        seen += process.stdout.read(1)
    time.sleep(0.3)
    rest = _press_ctrl_c(process)
    assert process.returncode == 130, seen + rest
    assert "Traceback" not in seen + rest
    assert not (tmp_path / "demo.json").exists()
