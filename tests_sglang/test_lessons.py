"""What was learned of the traffic is there again after a restart, and after the cache was flushed."""

import json

from benchmarks.sglang.bare_engine import BareEngine
from test_placement import ask


def test_a_new_server_starts_from_what_was_learned(tmp_path, monkeypatch):
    monkeypatch.setenv("MILEPOST_SGLANG", json.dumps({"learned": str(tmp_path / "lessons")}))
    engine = BareEngine()
    for document in range(5):
        for question in range(3):
            ask(engine, document, 10 * document + question)
    engine.manager.save()

    again = BareEngine()
    assert [ask(again, 77, question)[0] for question in (70, 71)] == [0, 2944]


def test_a_file_that_cannot_be_written_is_named_once_and_serving_goes_on(tmp_path, monkeypatch, caplog):
    (tmp_path / "folder").write_text("no folder")
    path = tmp_path / "folder" / "lessons"
    monkeypatch.setenv("MILEPOST_SGLANG", json.dumps({"learned": str(path)}))
    engine = BareEngine()
    engine.manager.save()
    engine.manager.save()

    assert [record.getMessage() for record in caplog.records if "not saved" in record.getMessage()][1:] == []
    assert "not saved" in caplog.text
    assert ask(engine, 1, 1)[0] == 0


def test_flushing_forgets_the_checkpoints_and_keeps_what_was_learned():
    engine = BareEngine()
    for document in range(5):
        for question in range(3):
            ask(engine, document, 10 * document + question)
    engine.flush()

    assert engine.positions() == []
    assert engine.manager.statistics().num_checkpoints == 0
    assert ask(engine, 4, 90)[0] == 0
    assert engine.manager.statistics().reset > 0, "the account says that the cache was emptied"
    assert [ask(engine, 77, question)[0] for question in (70, 71)] == [0, 2944]
    engine.check()
