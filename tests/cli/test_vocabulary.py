"""One vocabulary: what is the same thing has the same name in every command, and old names still work."""

import json
from collections import defaultdict

import pytest
from typer.testing import CliRunner

from cli_commands import COMMANDS
from milepost.cli.options import ENGINE_NAMES
from milepost.cli.program import app
from milepost.recommend import ENGINES

REPLAYS = ("simulate", "sweep", "recommend", "report")
TIGHT = ("--capacity-kv-tokens", "3k", "--checkpoint-kv-tokens", "96")


def shown_options(name: str) -> dict[str, str]:
    """Return the visible options of a command and the parameter that each sets."""
    return {
        option: parameter.name
        for parameter in COMMANDS[name].params
        if not getattr(parameter, "hidden", False)
        for option in parameter.opts
        if option.startswith("-")
    }


def run(*arguments) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "chats.jsonl"
    requests = [{"hash_ids": [0, 1, number], "input_length": 48, "block_size": 16} for number in range(2, 22)]
    path.write_text("".join(json.dumps(request) + "\n" for request in requests))
    return path


def test_an_option_of_one_name_sets_the_same_thing_everywhere_and_one_thing_has_one_name():
    by_option, by_thing = defaultdict(set), defaultdict(set)
    for command in COMMANDS:
        names = defaultdict(set)
        for option, thing in shown_options(command).items():
            by_option[option].add(thing)
            names[thing].add(option)
        for thing, options in names.items():
            by_thing[thing].add(frozenset(options))
    assert {option: things for option, things in by_option.items() if len(things) > 1} == {}
    assert {thing: names for thing, names in by_thing.items() if len(names) > 1} == {}


@pytest.mark.parametrize("name", REPLAYS)
def test_every_replay_knows_the_words_of_a_replay(name):
    assert {
        "--capacity",
        "--capacity-kv-tokens",
        "--checkpoint-kv-tokens",
        "--json",
        "--max-requests",
        "--model",
        "--skip-bad-lines",
        "--tokenizer",
    } <= shown_options(name).keys()


def test_every_command_speaks_json():
    silent = {name for name in COMMANDS if "--json" not in shown_options(name)}
    # A server prints no result: its log speaks JSON.
    assert silent == {"serve"}
    assert "--log-format" in shown_options("serve")


def test_what_writes_files_takes_output_and_o():
    for name in ("demo", "sweep", "report"):
        assert {"--output", "-o"} <= shown_options(name).keys()


def test_an_option_is_described_in_the_same_words_wherever_it_means_the_same():
    described = defaultdict(set)
    for name in REPLAYS:
        for parameter in COMMANDS[name].params:
            if not getattr(parameter, "hidden", False):
                text = (parameter.help or "").removesuffix(" Once for each to compare.")
                described[parameter.name].add(text)
    shared = {thing: texts for thing, texts in described.items() if len(texts) > 1}
    assert shared.keys() <= {"output", "traces"}, "files and folders differ; nothing else does"


def test_the_engines_that_help_names_are_those_there_are():
    assert tuple(ENGINES) == ENGINE_NAMES


def test_recommend_still_takes_memory_which_is_capacity_now(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "model_type": "qwen3",
                "dtype": "bfloat16",
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "intermediate_size": 128,
            }
        )
    )
    asked = ("recommend", "synthetic:chat,requests=20", "--model", config, "--engine", "vllm", "--json")
    assert "--memory" not in shown_options("recommend")
    now = run(*asked, "--capacity", "64MiB")
    assert run(*asked, "--memory", "64MiB") == now
    assert run(*asked, "--memory=64MiB") == now


def test_simulate_still_takes_format_which_is_json_now(log):
    asked = ("simulate", log, *TIGHT, "--policy", "tail")
    assert "--format" not in shown_options("simulate")
    assert run(*asked, "--format", "json") == run(*asked, "--json")
    assert run(*asked, "--format", "table") == run(*asked)


def test_max_requests_is_a_log_that_ends_there(log, tmp_path):
    short = tmp_path / "short" / log.name
    short.parent.mkdir()
    short.write_text("".join(log.read_text().splitlines(keepends=True)[:7]))
    asked = (*TIGHT, "--policy", "tail")
    cut = run("simulate", log, *asked, "--max-requests", "7", "--json")
    assert cut == run("simulate", short, *asked, "--json")
    assert json.loads(cut)[0]["num_requests"] == 7
    sweep = ("--jobs", "1", "--json", "--output")
    assert run("sweep", log, *asked, "--max-requests", "7", *sweep, tmp_path / "cut") == run(
        "sweep", short, *asked, *sweep, tmp_path / "whole"
    )


def test_nothing_behind_the_last_request_is_read(log):
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]) + "not a request\n")
    (result,) = json.loads(run("simulate", log, *TIGHT, "--policy", "tail", "--max-requests", "3", "--json"))
    assert result["num_requests"] == 3


def test_points_of_another_number_of_requests_are_other_points(log, tmp_path):
    asked = ("sweep", log, *TIGHT, "--policy", "tail", "--jobs", "1", "--output", tmp_path / "sweep.jsonl")
    run(*asked, "--max-requests", "7")
    (whole,) = json.loads(run(*asked, "--json"))
    assert whole["num_requests"] == 20


def test_a_report_prints_where_it_is_and_what_simulate_prints(log, tmp_path):
    pytest.importorskip("matplotlib")
    asked = (log, *TIGHT, "--policy", "tail", "--max-requests", "9", "--json")
    said = json.loads(run("report", *asked, "--output", tmp_path / "report"))
    assert said["results"] == json.loads(run("simulate", *asked))
    assert all((tmp_path / "report" / "index.html").samefile(path) for path in [said["page"]])
    assert said["figures"]
