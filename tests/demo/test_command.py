"""A miniature of the demo from end to end: what is written adds up."""

import io
import json
import re

import matplotlib.image
import pytest
import torch
from rich.console import Console

import milepost.engines.transformers.admission as admission_module
from milepost.demo.command import DemoOptions, run_demo
from milepost.demo.figure import draw_comparison
from milepost.errors import CapacityError, ConfigurationError, InvalidRequestError
from milepost.report.palette import COLOURS, looks

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)

POLICIES = ("none", "dense:256", "learned")
KNOWN = {"kemur": 417, "dasil": 203, "bonig": 868, "tarof": 551}


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    path = tmp_path_factory.mktemp("documents") / "documents.jsonl"
    texts = [f"Chapter {n}. " + " ".join(f"word{n * i}" for i in range(160)) for n in (3, 7)]
    path.write_text("\n".join(json.dumps({"document": text, "title": text[:9]}) for text in texts))
    return path


@pytest.fixture(scope="module")
def finished(documents, tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "new" / "folder"
    screen = io.StringIO()
    options = DemoOptions(
        documents=documents, questions=3, policies=POLICIES, max_new_tokens=2, output=output
    )
    comparison = run_demo(options, Console(file=screen, width=120))
    return comparison, json.loads((output / "demo.json").read_text()), output, screen.getvalue()


def test_every_answer_is_identical_to_the_one_without_a_cache(finished):
    _, numbers, _, _ = finished
    assert numbers["num_requests"] == 6
    for policy in numbers["policies"]:
        assert policy["outputs_identical"] == 6
        assert [r["answer_tokens"] for r in policy["requests"]] == [
            r["answer_tokens"] for r in numbers["policies"][0]["requests"]
        ]


def test_the_numbers_add_up(finished):
    _, numbers, _, _ = finished
    assert [policy["policy"] for policy in numbers["policies"]] == list(POLICIES)
    for policy in numbers["policies"]:
        assert policy["tokens_reused"] + policy["tokens_recomputed"] == numbers["prompt_tokens"]
        assert policy["tokens_reused"] == sum(request["reused"] for request in policy["requests"])
        assert policy["peak_state_bytes"] <= policy["peak_bytes"] <= numbers["capacity_bytes"]
        assert 0 < policy["ttft_seconds_p50"] <= policy["ttft_seconds_p95"]
        assert policy["capture_overhead"] >= 0
        for request in policy["requests"]:
            causes = ("reused", "unseen", "alignment", "placement", "eviction")
            assert sum(request[cause] for cause in causes) == request["num_tokens"]
            assert request["capture_seconds"] <= request["ttft_seconds"]


def test_the_picture_has_the_colours_of_the_report(finished, tmp_path):
    comparison, *_ = finished
    draw_comparison(comparison, tmp_path / "demo.svg")
    drawn = set(re.findall(r"#[0-9a-f]{6}\b", (tmp_path / "demo.svg").read_text()))
    looked = looks(POLICIES)
    assert {look.colour for look in looked.values()} <= drawn
    assert {COLOURS[part].light for part in ("reused", "unseen", "placement")} <= drawn
    own = {"#1f77b4", "#ff7f0e", "#2ca02c", "#d62728"}
    assert not own & drawn, "the drawing library's own colours say nothing"


def test_known_answers_are_counted_and_the_control_goes_wrong(tmp_path):
    notes = "\n".join(f"The value of {name} is {value}." for name, value in KNOWN.items())
    text = "\n".join(f"Line {number} of a list." for number in range(60))
    questions = [
        {"question": f"What is the value of {name}?", "answer": f" {KNOWN[name]}."} for name in KNOWN
    ]
    record = {"document": f"{notes}\n{text}", "questions": [*questions, "Why?"]}
    (tmp_path / "known.jsonl").write_text(json.dumps(record))
    screen = io.StringIO()
    options = DemoOptions(documents=tmp_path / "known.jsonl", policies=("none", "learned"), output=tmp_path)
    comparison = run_demo(options, Console(file=screen, width=120))
    assert comparison.num_known == 4
    right = [run.num_right(comparison.asks) for run in comparison.runs]
    assert right[0] == right[1] >= 3
    assert comparison.num_right_from_lost_states <= 1
    assert f"{right[0]}/4" in screen.getvalue()
    assert f"{comparison.num_right_from_lost_states}/4 answers are right" in " ".join(
        screen.getvalue().split()
    )


def test_where_no_answer_is_known_none_is_counted_and_there_is_no_control(finished):
    comparison, numbers, _, screen = finished
    assert comparison.num_known == 0
    assert comparison.lost_state_answers is None
    assert numbers["answers_right_from_lost_states"] is None
    assert "right" not in screen


def test_the_reference_reuses_nothing_and_the_others_do(finished):
    reference, *others = finished[1]["policies"]
    assert reference["tokens_reused"] == reference["peak_bytes"] == reference["checkpoints_per_prompt"] == 0
    assert all(policy["tokens_reused"] > 0 for policy in others)


def test_the_model_is_opened_and_probed_once_for_all_policies(documents, tmp_path, monkeypatch):
    probed = []
    upstream = admission_module.probe_resume
    monkeypatch.setattr(
        admission_module, "probe_resume", lambda driver: probed.append(driver) or upstream(driver)
    )
    options = DemoOptions(
        documents=documents, questions=1, policies=POLICIES, max_new_tokens=1, output=tmp_path
    )
    run_demo(options, Console(file=io.StringIO()))
    assert len(probed) == 1


def test_a_document_with_half_a_character_is_refused(tmp_path):
    (tmp_path / "broken.jsonl").write_text(json.dumps({"document": "a \ud800 b", "questions": ["why"]}))
    options = DemoOptions(documents=tmp_path / "broken.jsonl", output=tmp_path)
    with pytest.raises(InvalidRequestError, match="half of a surrogate pair"):
        run_demo(options, Console(file=io.StringIO()))


def test_the_picture_is_a_real_picture(finished):
    picture = matplotlib.image.imread(finished[2] / "demo.png")
    assert picture.shape[0] > 600
    assert picture.shape[1] > 900
    assert len({tuple(pixel) for pixel in picture[::20, ::20].reshape(-1, picture.shape[2])}) > 5


def test_the_table_shows_every_policy_and_the_files(finished):
    comparison, _, output, screen = finished
    for policy in POLICIES:
        assert policy in screen
    assert screen.count("6/6") >= len(POLICIES)
    assert "one checkpoint of qwen3_5_text takes" in screen
    assert "demo.json" in screen
    assert output.is_dir()
    assert len(comparison.runs) == len(POLICIES)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"policies": ()}, ConfigurationError, "at least one policy"),
        ({"policies": ("lerned",)}, ConfigurationError, "did you mean"),
        ({"capacity": "5"}, CapacityError, "give at least"),
        ({"capacity": "much"}, ConfigurationError, "not an amount of memory"),
        ({"numerics": "exact"}, ConfigurationError, "strict, fast"),
        ({"questions": 0}, ConfigurationError, "one question"),
        ({"max_new_tokens": 0}, InvalidRequestError, "max_new_tokens=0"),
    ],
)
def test_a_bad_option_is_refused_and_writes_no_result(documents, tmp_path, change, error, says):
    options = DemoOptions(
        **{"documents": documents, "output": tmp_path / "out", "policies": ("none",)} | change
    )
    with pytest.raises(error, match=says):
        run_demo(options, Console(file=io.StringIO()))
    assert not list((tmp_path / "out").glob("*"))


def test_an_output_that_cannot_be_written_is_found_before_the_work(documents, tmp_path, monkeypatch):
    monkeypatch.setattr("milepost.demo.command.load_model", lambda _: pytest.fail("the work began"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="give another --output"):
        run_demo(DemoOptions(documents=documents, output=tmp_path / "file"), Console(file=io.StringIO()))


def test_a_document_longer_than_the_models_context_is_refused(tmp_path):
    (tmp_path / "long.txt").write_text("1" * 40_000)
    options = DemoOptions(documents=tmp_path / "long.txt", output=tmp_path)
    with pytest.raises(InvalidRequestError, match="context 32,768"):
        run_demo(options, Console(file=io.StringIO()))
