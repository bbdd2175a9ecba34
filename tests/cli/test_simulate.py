"""``milepost simulate`` and ``milepost sweep`` from the command line."""

import gzip
import json
import sys

import pytest
from small_traces import four_requests
from typer.testing import CliRunner

from milepost.cli import main
from milepost.cli.program import app
from milepost.cli.traffic import _parse_tokens
from milepost.traces import write_trace

COSTS = ["--checkpoint-kv-tokens", "10"]
TIGHT = [*COSTS, "--capacity-kv-tokens", "84"]
CONFIG = {
    "model_type": "qwen3",
    "dtype": "bfloat16",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 3072,
}


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "four.jsonl"
    write_trace(four_requests(), path)
    return str(path)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments, monkeypatch, capsys) -> str:
    """Return the one line that ``main`` says when it refuses."""
    monkeypatch.setattr(sys, "argv", ["milepost", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    return capsys.readouterr().err.replace("\n", " ")


def test_json_is_a_list_of_runs_traces_first_then_capacities_then_policies(log):
    arguments = ["--policy", "tail", "--policy", "none", "--capacity-kv-tokens", "1k"]
    done = run("simulate", log, "synthetic:chat,requests=20", *TIGHT, *arguments, "--json")
    assert done.exit_code == 0
    results = json.loads(done.stdout)
    assert [(r["trace"], r["capacity_kv_tokens"], r["policy"]) for r in results[:5]] == [
        ("four", 84, "tail"),
        ("four", 84, "none"),
        ("four", 1000, "tail"),
        ("four", 1000, "none"),
        ("synthetic:chat,requests=20", 84, "tail"),
    ]
    assert [results[0]["reused_tokens"], results[2]["reused_tokens"]] == [80, 96]
    assert list(results[0]) == [
        "trace",
        "policy",
        "capacity_kv_tokens",
        "checkpoint_kv_tokens",
        "num_requests",
        "input_tokens",
        "reused_tokens",
        "reused_fraction",
        "ceiling_fraction",
        "mean_checkpoints_per_request",
        "peak_kv_tokens",
        "lost",
        "seconds",
        "num_warm_up_requests",
        "log",
    ]
    assert list(results[0]["lost"]) == ["unseen", "placement", "eviction", "alignment"]


def test_the_same_command_prints_the_same_bytes(log):
    arguments = ["simulate", log, "synthetic:agents,requests=30", *TIGHT, "--json"]
    assert run(*arguments).stdout == run(*arguments).stdout


def test_seconds_are_measured_only_when_asked_for(log):
    plain = json.loads(run("simulate", log, *TIGHT, "--json").stdout)
    timed = json.loads(run("simulate", log, *TIGHT, "--json", "--timing").stdout)
    assert {result["seconds"] for result in plain} == {None}
    assert all(result["seconds"] >= 0 for result in timed)
    assert "time" in run("simulate", log, *TIGHT, "--timing").stdout


def test_the_table_marks_the_best_policy_and_says_what_was_lost(log):
    lines = run("simulate", log, *TIGHT, "--policy", "none", "--policy", "tail").stdout.splitlines()
    (best,) = [line for line in lines if line.lstrip().startswith("*")]
    assert best.split() == ["*", "tail", "32.3%", "55.6%", "1.00", "35.5%", "19.4%", "6.5%", "6.5%"]
    assert "4 requests, 248 tokens, at most 58.1% reusable;" in " ".join(" ".join(lines).split())


def test_a_trace_of_nothing_to_reuse_has_a_table_too(tmp_path):
    write_trace(four_requests()[:1], tmp_path / "one.jsonl")
    assert "-" in run("simulate", tmp_path / "one.jsonl", *TIGHT, "--policy", "tail").stdout


def test_standard_input_is_read_once_for_all_policies(log, tmp_path):
    with open(log, "rb") as stream:
        piped = CliRunner().invoke(app, ["simulate", "-", *TIGHT, "--json"], input=stream.read())
    assert piped.exit_code == 0
    assert {result["trace"] for result in json.loads(piped.stdout)} == {"standard input"}


def test_costs_come_from_a_configuration(log, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    arguments = ["--model", tmp_path / "config.json", "--capacity", "1GiB", "--policy", "tail"]
    (result,) = json.loads(run("simulate", log, *arguments, "--json").stdout)
    assert (result["capacity_kv_tokens"], result["checkpoint_kv_tokens"]) == (2**30 // 114_688, 0)


def test_bad_lines_are_fatal_or_counted(log, tmp_path, monkeypatch, capsys):
    bad = tmp_path / "bad.jsonl.gz"
    with open(log, "rb") as stream:
        bad.write_bytes(gzip.compress(b"nonsense\n" + stream.read()))
    said = refused("simulate", bad, *TIGHT, monkeypatch=monkeypatch, capsys=capsys)
    assert "line 1" in said
    assert "--skip-bad-lines" in said
    done = run("simulate", bad, *TIGHT, "--skip-bad-lines", "--json")
    assert json.loads(done.stdout)[0]["num_requests"] == 4
    assert "bad: skipped 1 malformed line; the first:" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "TRACE"),
        (["synthetic:chat", "--capacity-kv-tokens", "100k"], "say what a checkpoint costs"),
        (["synthetic:chat", *TIGHT, "--model", "."], "say what a checkpoint costs"),
        (["synthetic:chat", *COSTS], "say how much memory there is"),
        (["synthetic:chat", *COSTS, "--capacity", "1GiB"], "known only of a --model"),
        (["synthetic:chat", *COSTS, "--capacity-kv-tokens", "lots"], "is not a number of tokens"),
        (["synthetic:chat", *TIGHT, "--format", "yaml"], "--format"),
        (["synthetic:chat", *TIGHT, "--grid", "0"], "--grid"),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "sweep"])
def test_wrong_usage_exits_with_2_and_says_what_to_give(command, arguments, says):
    if command == "sweep" and "--format" in arguments:
        says = "No such option"
    done = run(command, *arguments)
    assert done.exit_code == 2
    assert says in " ".join(done.output.replace(" ", " ").split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.jsonl", *TIGHT], "there is no file missing.jsonl"),
        (["synthetic:chat,requests=5", *TIGHT, "--policy", "tale"], "did you mean 'tail'"),
        (["synthetic:chat,requests=5", *COSTS, "--capacity-kv-tokens", "5"], "give at least 26"),
        (["synthetic:chat,requests=5", *TIGHT, "--grid", "24"], "give a multiple of the block"),
    ],
)
def test_what_is_refused_exits_with_1_and_one_line(arguments, says, monkeypatch, capsys):
    said = refused("simulate", *arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert says in said
    assert "Traceback" not in said


def test_a_sweep_writes_a_file_resumes_it_and_prints_what_simulate_prints(log, tmp_path):
    output = tmp_path / "results.jsonl"
    arguments = ["sweep", log, *TIGHT, "--policy", "tail", "--output", output, "--jobs", "1", "--json"]
    first = run(*arguments)
    content = output.read_bytes()
    second = run(*arguments)
    simulated = run("simulate", log, *TIGHT, "--policy", "tail", "--json")
    assert first.stdout == second.stdout == simulated.stdout
    assert output.read_bytes() == content
    assert "1 of them were there already" in " ".join(second.stderr.split())
    assert json.loads(content)["reused_tokens"] == 80


def test_a_sweep_shows_a_table_unless_asked_for_json(log, tmp_path):
    shown = run("sweep", log, *TIGHT, "--output", tmp_path / "results.jsonl", "--jobs", "1")
    assert "four, 84 tokens of KV" in shown.stdout


@pytest.mark.parametrize(
    ("text", "tokens"), [("400000", 400_000), ("400_000", 400_000), ("400k", 400_000), ("1.5M", 1_500_000)]
)
def test_amounts_of_tokens_are_written_as_people_write_them(text, tokens):
    assert _parse_tokens(text) == tokens
