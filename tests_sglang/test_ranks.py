"""Of ranks that see the same requests one tells and saves, and of every replica of the attention one does."""

import json

import pytest
from benchmarks.sglang.bare_engine import BareEngine
from test_placement import ask

TENSOR = {"tp_size": 4}
ATTENTION = {"tp_size": 4, "dp_size": 2, "enable_dp_attention": True}
IN_PARTS = {"tp_size": 8, "dp_size": 2, "enable_dp_attention": True, "attn_cp_size": 2}


@pytest.mark.parametrize(
    ("options", "first"),
    [(TENSOR, [0]), (ATTENTION, [0, 2]), (ATTENTION | {"dp_size": 4}, [0, 1, 2, 3]), (IN_PARTS, [0, 4])],
    ids=["tensor parallel", "two replicas", "four replicas", "context parallel"],
)
def test_each_replica_of_the_attention_has_one_rank_that_tells(options, first, tmp_path, monkeypatch):
    monkeypatch.setenv("MILEPOST_SGLANG", json.dumps({"learned": str(tmp_path / "lessons")}))
    tells, saves = [], []
    for rank in range(options["tp_size"]):
        engine = BareEngine(options=options | {"enable_metrics": True}, context={"tp_rank": rank})
        tells += [rank] * (engine.cache.metrics is not None)
        before = {path.name for path in tmp_path.iterdir()}
        engine.manager.save()
        saves += [rank] * ({path.name for path in tmp_path.iterdir()} > before)

    assert tells == saves == first
    assert len(list(tmp_path.iterdir())) == len(first), "none overwrites what another has learned"


def test_later_stages_of_a_pipeline_tell_and_save_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MILEPOST_SGLANG", json.dumps({"learned": str(tmp_path / "lessons")}))
    engine = BareEngine(options={"enable_metrics": True}, params={"pp_rank": 1})
    engine.manager.save()

    assert engine.cache.metrics is None
    assert list(tmp_path.iterdir()) == []


def test_each_replica_starts_from_what_it_has_learned_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("MILEPOST_SGLANG", json.dumps({"learned": str(tmp_path / "lessons")}))
    for replica in (0, 1):
        engine = BareEngine(replica=replica)
        for document in range(5 * replica):
            for question in range(3):
                ask(engine, document, 10 * document + question)
        engine.manager.save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lessons", "lessons.1"]

    found = [[ask(engine, 77, question)[0] for question in (70, 71)] for engine in map(replica_of, (0, 1))]
    assert found[1] == [0, 2944]
    assert found[0] != found[1], "the first was asked nothing"


def replica_of(number):
    return BareEngine(replica=number)
