"""A file of measured runs becomes two figures for each workload; another file is refused."""

import json
import math

import pytest

from milepost.errors import ConfigurationError
from milepost.report import is_frontier_file, write_frontiers
from milepost.report.figures.measured import saved_drawing, time_drawing
from milepost.report.frontier_file import FORMAT, read_frontier


def run(policy, capacity, ratios, saved, stored):
    return {
        "policy": policy,
        "capacity_bytes": capacity,
        "off_ratios": ratios,
        "saved_fraction": saved,
        "checkpoints_per_entry": stored,
    }


def content():
    runs = [
        run("none", 2_000_000, [1.0, 1.0, 1.0], 0.0, 0.0),
        run("learned", 2_000_000, [0.5, 0.4, 0.6], 0.55, 1.5),
        run("learned", 1_000_000, [0.8, 0.7, 0.9], 0.25, 0.5),
        run("vllm", 1_000_000, [0.9, 0.9, 0.95], 0.15, 2.5),
    ]
    return {
        "format": FORMAT,
        "model": "a tiny one",
        "workloads": [{"name": "quality", "title": "Questions on documents", "runs": runs}],
    }


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "frontier.json"
    found.write_text(json.dumps(content()))
    return found


def test_runs_are_read_in_order_of_budgets_and_medians_over_turns(path):
    (measured,) = read_frontier(path)
    assert measured.policies == ("learned", "vllm")
    assert [each.capacity_bytes for each in measured.of("learned")] == [1_000_000, 2_000_000]
    assert [each.off_ratio for each in measured.of("learned")] == [0.8, 0.5]
    assert math.isclose(measured.of("vllm")[0].off_ratio, 0.9)


def test_drawings_say_in_words_what_is_best(path):
    (measured,) = read_frontier(path)
    assert (
        "learned saves most, 55.0\u00a0% of the prompt tokens, with 1.5"
        in saved_drawing(measured).description
    )
    assert "learned is fastest: 0.50 of the time" in time_drawing(measured).description


def test_both_figures_of_each_workload_are_written(path, tmp_path):
    written = write_frontiers([path], tmp_path / "report")
    assert [each.name for each in written] == [
        "questions-on-documents-saved.svg",
        "questions-on-documents-saved.png",
        "questions-on-documents-time.svg",
        "questions-on-documents-time.png",
    ]
    assert "checkpoints that are held" in written[0].read_text()
    assert all(each.stat().st_size > 2_000 for each in written)


def test_a_figure_for_a_phone_has_its_names_below(path):
    from milepost.report.figures import render_inline

    (measured,) = read_frontier(path)
    assert "learned" in render_inline(time_drawing(measured), prefix="a").narrow


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        json.dumps({"format": "other"}),
        json.dumps({"format": FORMAT, "model": "m", "workloads": [{}]}),
        json.dumps({"format": FORMAT, "model": "m", "workloads": []}),
        json.dumps({"format": FORMAT, "x": 0})[:-2] + "[" * 100_000,
    ],
)
def test_a_file_of_something_else_is_refused(broken, tmp_path):
    path = tmp_path / "frontier.json"
    path.write_text(broken)
    with pytest.raises(ConfigurationError, match=r"holds no measured runs .*benchmarks\.frontier --output"):
        read_frontier(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("off_ratios", []),
        ("off_ratios", [math.nan]),
        ("capacity_bytes", math.inf),
        ("capacity_bytes", -1),
        ("saved_fraction", 1.5),
        ("checkpoints_per_entry", "many"),
        ("policy", "none"),
    ],
)
def test_runs_that_nothing_measured_are_refused(name, value, path):
    damaged = content()
    damaged["workloads"][0]["runs"] = [damaged["workloads"][0]["runs"][1] | {name: value}]
    path.write_text(json.dumps(damaged))
    with pytest.raises(ConfigurationError, match="holds no measured runs"):
        read_frontier(path)


def test_a_file_of_another_version_is_said_to_be_one(path):
    path.write_text(json.dumps(content() | {"format": "milepost frontier 2"}))
    assert is_frontier_file(path)
    with pytest.raises(ConfigurationError, match="'milepost frontier 2', and 'milepost frontier 1' is read"):
        read_frontier(path)


def test_what_is_measured_is_told_from_a_log(path, tmp_path):
    assert is_frontier_file(path)
    assert not is_frontier_file(tmp_path / "missing")
    log = tmp_path / "log.jsonl"
    log.write_text("{}")
    assert not is_frontier_file(log)
