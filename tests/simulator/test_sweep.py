"""Sweeps: every point once, whatever happens, and the same file in the end."""

import os
from dataclasses import replace

import pytest

from milepost.errors import CapacityError, ConfigurationError, MilepostError, TraceFormatError
from milepost.simulator import Setting, SweepPoint, TraceSource, nominal_footprint, simulate, sweep
from milepost.simulator.trace_source import distinct_names, requests_of, survey
from milepost.simulator.workers import run_tasks
from milepost.traces import open_trace, write_trace

CHAT, AGENTS = "synthetic:chat,requests=30,seed=1", "synthetic:agents,requests=30,seed=1"


def grid_of_points(traces=(CHAT, AGENTS), capacities=(20_000, 60_000), policies=("learned", "tail")):
    return [
        SweepPoint(
            TraceSource(trace),
            Setting(policy=policy, capacity_kv_tokens=capacity, footprint=nominal_footprint(500)),
        )
        for trace in traces
        for capacity in capacities
        for policy in policies
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def test_a_sweep_gives_what_simulations_give_in_the_order_of_its_points():
    points = grid_of_points()
    outcome = sweep(points)
    assert list(outcome.results) == [
        simulate(
            open_trace(point.source.path),
            policy=point.setting.policy,
            capacity_kv_tokens=point.setting.capacity_kv_tokens,
            checkpoint_kv_tokens=500,
        )
        for point in points
    ]
    assert outcome.num_resumed == 0


def test_processes_change_neither_the_results_nor_the_file(path):
    here = sweep(grid_of_points(), output=path)
    content = path.read_bytes()
    path.unlink()
    assert sweep(grid_of_points(), output=path, jobs=2) == here
    assert path.read_bytes() == content


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_stopped_by_ctrl_c_goes_on_where_it_was(path, jobs):
    points = grid_of_points()
    expected = sweep(points, output=path)
    content = path.read_bytes()
    path.unlink()

    def press_ctrl_c(progress):
        if progress.stage == "replaying" and progress.done >= 90:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(points, output=path, jobs=jobs, watch=press_ctrl_c)
    num_finished = len(path.read_text().splitlines())
    assert 3 <= num_finished < len(points)
    resumed = sweep(points, output=path)
    assert (resumed.results, resumed.num_resumed) == (expected.results, num_finished)
    assert path.read_bytes() == content


def test_a_larger_grid_computes_only_what_is_new(path):
    sweep(grid_of_points(policies=("tail",)), output=path)
    done = []
    outcome = sweep(grid_of_points(), output=path, watch=done.append)
    assert outcome.num_resumed == 4
    assert done[-1].total == done[-1].done == 4 * 30
    assert len(path.read_text().splitlines()) == 8


def test_a_trace_is_known_by_its_content_not_by_its_name(path, tmp_path):
    for name in ("one.jsonl", "two.jsonl.gz"):
        write_trace(open_trace(CHAT), tmp_path / name)
    first = sweep(grid_of_points(traces=[str(tmp_path / "one.jsonl")]), output=path)
    second = sweep(grid_of_points(traces=[str(tmp_path / "two.jsonl.gz")]), output=path)
    assert second.num_resumed == 4
    assert {result.trace for result in second.results} == {"two"}
    assert [result.reused_tokens for result in first.results] == [
        result.reused_tokens for result in second.results
    ]


def test_another_trace_of_the_same_name_is_another_trace(tmp_path):
    paths = [tmp_path / folder / "log.jsonl" for folder in "ab"]
    for path, trace in zip(paths, (CHAT, AGENTS), strict=True):
        path.parent.mkdir()
        write_trace(open_trace(trace), path)
    sources = [TraceSource(str(path)) for path in paths]
    assert distinct_names(sources) == [str(path) for path in paths]
    assert survey(sources[0], grid=None).digest != survey(sources[1], grid=None).digest


def test_a_survey_finds_the_ceiling_and_counts_bad_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    write_trace(open_trace(CHAT), path)
    path.write_text(path.read_text() + "nonsense\n")
    found = survey(TraceSource(str(path), skip_bad_lines=True), grid=None)
    assert (found.num_requests, found.grid, found.log.num_bad_lines) == (30, 16, 1)
    result = simulate(open_trace(CHAT), policy="tail", capacity_kv_tokens=20_000, checkpoint_kv_tokens=500)
    assert found.ceiling_fraction == result.ceiling_fraction
    with pytest.raises(TraceFormatError, match="line 31"):
        survey(TraceSource(str(path)), grid=None)


def test_a_trace_too_large_to_keep_is_read_anew(monkeypatch):
    monkeypatch.setattr("milepost.simulator.trace_source._MOST_KEYS_HELD", 100)
    requests_of.cache_clear()
    assert not isinstance(requests_of(TraceSource(CHAT)), list)
    assert list(requests_of(TraceSource(CHAT))) == list(open_trace(CHAT))
    requests_of.cache_clear()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"traces": ["-"]}, ConfigurationError, "read only once"),
        ({"traces": ["missing.jsonl"]}, TraceFormatError, "there is no file"),
        ({"policies": ["tail", "tale"]}, ConfigurationError, "did you mean 'tail'"),
        ({"capacities": [20_000, 10]}, CapacityError, "give at least 516"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(path, options, error, says):
    with pytest.raises(error, match=says):
        sweep(grid_of_points(**options), output=path)
    assert not path.exists()


def test_what_a_file_of_results_cannot_tell_apart_is_not_swept(path):
    (point, *_) = grid_of_points()
    engine = SweepPoint(point.source, replace(point.setting, max_checkpoints=2))
    with pytest.raises(ConfigurationError, match="max_checkpoints or capture_tokens is set"):
        sweep([point, engine], output=path)
    assert not path.exists()


def test_a_trace_that_fails_later_is_reported_and_what_was_done_is_kept(path):
    source = path.with_name("log.jsonl")
    write_trace(open_trace("synthetic:chat,requests=20,seed=1"), source)

    def empty_it(progress):
        if progress.stage == "replaying" and progress.done >= 30:
            source.write_text("")

    points = grid_of_points(traces=[CHAT, str(source)])
    with pytest.raises(TraceFormatError, match="is empty"):
        sweep(points, output=path, watch=empty_it)
    assert len(path.read_text().splitlines()) == 4


def test_a_process_that_dies_is_reported():
    with pytest.raises(MilepostError, match=r"a process of the sweep died, .* fewer --jobs"):
        run_tasks(os._exit, [(3,), (3,)], jobs=2, take=lambda *_: None)
