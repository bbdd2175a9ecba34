"""The frontier: requests in the paper's proportions, runs that are counted and compared as they should."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.frontier.measuring import OFF, budgets_of, measure_workload
from benchmarks.frontier.replaying import rows_of_replay
from benchmarks.frontier.rows import rows_of
from benchmarks.frontier.workloads import FrontierWorkload, made_up_workloads, paper_workloads

from families import tiny_model
from milepost import Engine


def shared(one, other):
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if different.size else length


@pytest.fixture
def logs(tmp_path):
    lines = [
        {"conv_id": "a", "seq_len": 400, "hit": False, "prefix_match": 0},
        {"conv_id": "b", "seq_len": 600, "hit": False, "prefix_match": 0},
        {"conv_id": "a", "seq_len": 480, "hit": True, "prefix_match": 360},
    ]
    text = "\n".join(map(json.dumps, lines))
    for name in ("quality", "system_prompts"):
        (tmp_path / f"{name}_clean_requests.jsonl").write_text(text)
    return tmp_path


def test_requests_are_shorter_in_proportion(logs):
    quality, _ = paper_workloads(logs, shorter=4, num_requests=3, vocabulary_size=250)
    assert [tokens.size for tokens in quality.requests] == [100, 150, 120]
    assert shared(quality.requests[0], quality.requests[2]) == 90
    assert shared(quality.requests[0], quality.requests[1]) < 3
    assert all(tokens.min() >= 3 and tokens.max() < 250 for tokens in quality.requests)


def test_made_up_traffic_shares_what_its_name_says():
    agents, unique = made_up_workloads(shorter=40, num_requests=12, vocabulary_size=250)
    longest = max(shared(one, two) for one in agents.requests for two in agents.requests if one is not two)
    assert longest > 200
    assert max(shared(one, two) for one in unique.requests for two in unique.requests if one is not two) < 5


def test_every_policy_gets_every_request_and_answers_alike():
    document = np.random.default_rng(0).integers(3, 250, 300, dtype=np.int32)
    questions = [np.append(document, np.arange(10 + index, 40 + index, dtype=np.int32)) for index in range(3)]
    workload = FrontierWorkload(
        name="quality", title="Q", warmup=[document], requests=questions, num_entries=2
    )
    engine = Engine.open(tiny_model("qwen3_5"), policy="none", segment_tokens=64)
    told = []
    runs = measure_workload(
        workload,
        engine,
        policies=("learned", "balanced:2"),
        budgets=budgets_of(workload, engine.footprint, (1.0,)),
        num_turns=2,
        on_request=lambda: told.append(1),
    )
    assert [run.policy for run in runs] == [OFF, "learned", "balanced:2"]
    assert len(told) == 2 * 3 * 3
    assert runs[0].off_ratios == [1.0, 1.0]
    assert runs[0].saved_fraction == 0.0
    assert runs[2].saved_fraction > 0.3
    assert runs[2].checkpoints_per_entry > 0
    assert all(run.num_different == 0 for run in runs)
    names = [row.name for row in rows_of({"quality": runs})]
    assert names[0] == "quality: learned with capture / no cache"
    assert "learned / best other (balanced:2)" in names[1]
    (row,) = rows_of_replay(
        workload,
        engine.footprint,
        policies=("learned", "balanced:2"),
        budgets=[runs[1].capacity_bytes],
        segment_tokens=64,
    )
    saved = {"saved": runs[1].saved_fraction, "saved by balanced:2": runs[2].saved_fraction}
    assert row.numbers == saved, "without a model the same is saved"


def test_an_answer_that_differs_is_counted():
    def run(policy, different):
        return SimpleNamespace(
            policy=policy,
            capacity_bytes=1_000_000,
            totals=[1.0],
            total_seconds=1.0,
            saved_fraction=0.0,
            capture_seconds=0.0,
            num_different=different,
        )

    rows = rows_of({"unique": [run(OFF, 0), run("learned", 2)]})
    assert not rows[-1].reached
    assert rows[-1].numbers["different"] == 2
