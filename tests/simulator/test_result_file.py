"""The file of a sweep: what is in it is found again, half a line dropped, others' files left alone."""

import json
import os

import pytest
from small_traces import four_requests

from milepost.errors import ConfigurationError
from milepost.footprint import Footprint, PrefillCost
from milepost.simulator import nominal_footprint, result_file, simulate
from milepost.simulator.result_file import PointKey, ResultFile, footprint_digest


def point(capacity_kv_tokens: int, policy: str = "tail"):
    key = PointKey(
        trace_digest="d", grid=16, footprint="f", policy=policy, capacity_kv_tokens=capacity_kv_tokens
    )
    result = simulate(
        four_requests(), policy=policy, capacity_kv_tokens=capacity_kv_tokens, checkpoint_kv_tokens=10
    )
    return key, result


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def test_what_was_appended_is_found_by_the_next_reader(path):
    key, result = point(100)
    ResultFile(path).append(key, result)
    assert ResultFile(path).get(key) == result
    assert ResultFile(path).get(point(200)[0]) is None


def test_a_finished_file_is_the_same_in_whatever_order_points_came(path, tmp_path):
    points = [point(100), point(200), point(100, "dense:16")]
    contents = []
    for order in (points, points[::-1]):
        file = ResultFile(path)
        for key, result in order:
            file.append(key, result)
        file.finish()
        contents.append(path.read_bytes())
        path.unlink()
    assert contents[0] == contents[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept_bytes", [1, 10, 40, 300])
def test_half_a_last_line_is_dropped_and_its_point_done_again(path, kept_bytes):
    file = ResultFile(path)
    first, second = point(100), point(200)
    file.append(*first)
    file.append(*second)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:kept_bytes])
    resumed = ResultFile(path)
    assert resumed.get(first[0]) == first[1]
    assert resumed.get(second[0]) is None
    resumed.append(*second)
    assert path.read_bytes() == whole


def test_reading_alone_changes_nothing(path):
    path.write_bytes(b'{"trace_digest": "ab')
    ResultFile(path)
    assert path.read_bytes() == b'{"trace_digest": "ab'


def test_results_of_another_version_are_done_again_and_replaced(path, monkeypatch):
    key, result = point(100)
    ResultFile(path).append(key, result)
    monkeypatch.setattr(result_file, "code_version", lambda: "another")
    file = ResultFile(path)
    assert file.get(key) is None
    file.append(key, result)
    file.finish()
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["version"] == "another"


@pytest.mark.parametrize("content", ["hello", "hello\n", '{"hash_ids": [1]}\n', '{"hash_ids": [1]', "[1]\n"])
def test_a_file_that_is_something_else_is_left_alone(path, content):
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="line 1 is no result of a sweep; give another file"):
        ResultFile(path)
    assert path.read_text() == content


def test_a_folder_or_a_file_in_no_folder_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none" / "results.jsonl"):
        with pytest.raises(ConfigurationError, match="give a file in a folder that exists"):
            ResultFile(path)


def test_models_that_cost_differently_have_different_names():
    tokens = nominal_footprint(1_536.0)
    quadratic = Footprint(
        checkpoint_bytes=tokens.checkpoint_bytes,
        kv_bytes_per_token=tokens.kv_bytes_per_token,
        cost=PrefillCost(unit="flops", linear_per_token=1.0, attention_per_pair=1.0),
    )
    names = {footprint_digest(footprint) for footprint in (tokens, nominal_footprint(1_537.0), quadratic)}
    assert len(names) == 3
    assert footprint_digest(nominal_footprint(1_536.0)) in names


@pytest.mark.parametrize("locked", ["folder", "file"])
def test_where_nothing_can_be_written_is_refused_before_anything_is_computed(path, monkeypatch, locked):
    path.touch()
    place = path.parent if locked == "folder" else path
    # Root may write anywhere, whatever the mode of a file.
    monkeypatch.setattr(os, "access", lambda asked, mode: asked != place)
    with pytest.raises(ConfigurationError, match=f"may not write to {place}; give a file"):
        ResultFile(path)
