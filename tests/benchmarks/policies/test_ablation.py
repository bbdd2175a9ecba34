"""Placement against eviction, on a small log: KV alone, and with states."""

import pytest
from benchmarks.policies.ablation import KV_ALONE, STATES, measure_ablation, rows
from benchmarks.policies.points import BenchmarkTrace

from benchmarks.policies import ablation_figure, granularity
from milepost.simulator import simulate
from milepost.traces import open_trace, write_trace

CAPACITY = 40_000
SAMPLE = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    trace = open_trace("synthetic:documents,requests=60,seed=1,block=16")
    write_trace(trace, folder / "documents.jsonl")
    return folder


@pytest.fixture(scope="module")
def found(folder):
    traces = (BenchmarkTrace("documents", "documents.jsonl", 16, (CAPACITY, 2 * CAPACITY), (0.0, 0.0)),)
    with pytest.MonkeyPatch.context() as patch:
        for module in (granularity, ablation_figure):
            patch.setattr(module, "TRACES", traces)
        yield measure_ablation(folder, max_requests=SAMPLE, jobs=1)


def test_every_placement_meets_every_eviction(found):
    kv_alone, states = found
    assert STATES.policies == (
        "tail+junction",
        "tail+junction/learned",
        "balanced:8",
        "balanced:8/learned",
        "learned",
    )
    for ablation in (kv_alone, states):
        assert [point.grid for point in ablation.points] == [16, 16, 512, 512, 1024, 1024]
        assert {tuple(point.reused) for point in ablation.points} == {ablation.content.policies}


@pytest.mark.parametrize("content", [KV_ALONE, STATES], ids=lambda content: content.title)
def test_a_point_is_what_the_simulator_says_of_the_first_requests(found, folder, content):
    (measured,) = (each for each in found if each.content is content)
    for point in measured.points:
        result = simulate(
            open_trace(folder / "documents.jsonl").first(SAMPLE),
            policy=content.by_recency,
            capacity_kv_tokens=point.capacity_kv_tokens,
            checkpoint_kv_tokens=float(content.checkpoint_kv_tokens),
            grid=point.grid,
        )
        assert point.reused[content.by_recency] == result.reused_fraction


def test_what_both_add_is_the_way_from_recency_to_the_learned_policy(found):
    for measured in found:
        for point in measured.points:
            added = measured.from_eviction(point) + measured.from_placement(point)
            way = point.reused["learned"] - point.reused[measured.content.by_recency]
            assert added == pytest.approx(way)
    kv_alone, _ = found
    assert {kv_alone.from_placement(point) for point in kv_alone.points} == {0.0}
    assert len(rows(*found)) == 7


def test_the_figure_is_one_small_file(found, tmp_path):
    path = ablation_figure.draw_ablation(*found, folder=tmp_path / "images")
    assert [each.name for each in path.parent.iterdir()] == ["placement_and_eviction.png"]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 150_000
