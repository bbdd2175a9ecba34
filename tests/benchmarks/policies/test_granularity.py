"""The benchmark of policies at several block sizes, on a small log."""

import pytest
from benchmarks.policies.granularity import LADDER, POLICIES, granularity_rows, measure_granularity
from benchmarks.policies.points import BenchmarkTrace

from benchmarks.policies import granularity
from milepost.simulator import simulate
from milepost.traces import open_trace, write_trace

CAPACITY = 40_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    for block in (16, 512):
        trace = open_trace(f"synthetic:documents,requests=60,seed=1,block={block}")
        write_trace(trace, folder / f"documents_b{block}.jsonl")
    return folder


@pytest.fixture
def points(folder, monkeypatch):
    traces = tuple(
        BenchmarkTrace(f"documents {block}", f"documents_b{block}.jsonl", block, (CAPACITY,), (0.0,))
        for block in (16, 512)
    )
    monkeypatch.setattr(granularity, "TRACES", traces)
    return measure_granularity(folder, jobs=1)


def test_each_trace_is_replayed_at_its_own_blocks_and_at_larger_ones(points):
    assert [(point.trace, point.grid, point.is_own) for point in points] == [
        ("documents 16", 16, True),
        ("documents 16", 512, False),
        ("documents 16", 1024, False),
        ("documents 512", 512, True),
        ("documents 512", 1024, False),
    ]
    assert all(tuple(point.reused) == POLICIES for point in points)


def test_states_and_kv_sit_on_the_grid_that_is_named(points, folder):
    for point in points:
        found = simulate(
            open_trace(folder / f"documents_b{point.trace.split()[1]}.jsonl"),
            policy="learned",
            capacity_kv_tokens=CAPACITY,
            checkpoint_kv_tokens=1536.0,
            grid=point.grid,
        )
        assert found.reused_fraction == point.reused["learned"]


def test_what_eviction_and_positions_add_is_the_way_from_the_first_to_the_last(points):
    for point in points:
        first, last = point.reused[LADDER[0]], point.reused[LADDER[-1]]
        assert point.from_eviction + point.from_placement == pytest.approx(last - first)
    rows = granularity_rows(points)
    assert len(rows) == 6
    assert {row.numbers["geometric_mean"] > 0 for row in rows[::2]} == {True}
