"""What cannot be measured, compared or written is said at once, and what was measured is kept."""

import json

import pytest
from benchmarks.frontier.command_line import parse_options

from benchmarks.frontier import __main__ as frontier
from families import tiny_model
from milepost.report.frontier_file import read_frontier


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workloads", "nosuch"], "invalid choice: 'nosuch'"),
        (["--workloads", "quality"], "give their folder as --logs"),
        (["--logs", "/nosuch"], "/nosuch lacks quality_clean_requests.jsonl, system_prompts_clean"),
        (["--policies", "learned", "nosuch"], "policy 'nosuch' is unknown"),
        (["--policies", "vllm", "marconi"], "give it and at least one other"),
        (["--policies", "learned"], "give it and at least one other"),
        (["--policies", "learned", "none"], "is run in any case"),
        (["--policies", "learned", "vllm", "vllm"], "names vllm twice"),
        (["--shares", "0.5", "0.5"], "names 0.5 twice"),
        (["--shares", "0"], "give numbers above 0"),
        (["--shares", "nan"], "give numbers above 0"),
        (["--requests", "3"], "give at least 4"),
        (["--turns", "0"], "give at least 1"),
        (["--output", "/nosuch/frontier.json"], "no file can be written"),
        (["--output", "/dev/null"], "no file can be written"),
        (["--replay", "--output", "frontier.json"], "leave one of them"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_options(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_without_logs_made_up_traffic_is_run():
    assert parse_options([]).workloads == ("agents", "unique")


@pytest.fixture
def small(monkeypatch):
    """A tiny model in the place of the layer group, and short prompts."""
    monkeypatch.setattr(frontier, "build_layer_group", lambda *_, **__: tiny_model("qwen3_5"))
    monkeypatch.setattr(frontier, "_VOCABULARY_SIZE", 250)
    monkeypatch.setattr(frontier, "_SHORTER", 40)

    def run(*arguments):
        sizes = ("--requests", "4", "--turns", "1", "--policies", "learned", "vllm")
        monkeypatch.setattr("sys.argv", ["frontier", *sizes, *arguments])
        with pytest.raises(SystemExit) as stopped:
            frontier.main()
        return stopped.value.code

    return run


def test_what_was_measured_is_written_before_the_next_workload(small, monkeypatch, tmp_path):
    measure, output = frontier.measure_workload, tmp_path / "frontier.json"

    def stopped_at_the_second(workload, *args, **options):
        if workload.name == "unique":
            raise KeyboardInterrupt
        return measure(workload, *args, **options)

    monkeypatch.setattr(frontier, "measure_workload", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        small("--shares", "1.0", "--output", str(output))
    assert [each.title for each in read_frontier(output)] == ["Agents"]
    assert list(tmp_path.iterdir()) == [output]


def test_a_budget_for_nothing_is_said_before_any_workload_is_measured(small, monkeypatch):
    monkeypatch.setattr(frontier, "measure_workload", lambda *_, **__: pytest.fail("measured"))
    assert "frontier: capacity_bytes=" in small("--shares", "1.0", "0.0001")


def test_other_logits_are_an_exit_code(small, monkeypatch, capsys):
    measure = frontier.measure_workload

    def with_another(*args, **options):
        runs = measure(*args, **options)
        runs[1].num_different = 1
        return runs

    arguments = ("--shares", "1.0", "--workloads", "unique", "--json")
    assert not small(*arguments)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["numbers"] == {"different": 0}
    monkeypatch.setattr(frontier, "measure_workload", with_another)
    assert small(*arguments) == 1
