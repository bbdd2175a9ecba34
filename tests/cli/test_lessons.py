"""``milepost lessons``: what was learned is told, and merged or refused with a reason."""

import json

import pytest
from traffic import GRID, PLENTY, STATE_BYTES, document_questions, serve_all
from typer.testing import CliRunner

from milepost.cli.program import app
from milepost.errors import ConfigurationError
from milepost.policies import save_lessons


def run(*arguments):
    return CliRunner().invoke(app, ["lessons", *map(str, arguments)])


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for seed, path in enumerate(paths):
        save_lessons(
            serve_all("learned", document_questions(groups=2, seed=seed), capacity=PLENTY).policy, path
        )
    return paths


def test_a_file_is_shown_in_words_and_in_json(files):
    words = run("show", files[0]).stdout
    assert "40, 12 of which told where prompts part" in words
    assert f"a grid of {GRID} tokens, checkpoints of {STATE_BYTES:,} bytes" in words
    told = json.loads(run("show", files[0], "--json").stdout)
    assert (told["num_requests"], told["num_overlaps"]) == (40, 12)
    assert told["layouts"] == [[GRID, STATE_BYTES]]


def test_merged_files_are_told_of_as_one(files, tmp_path):
    merged = run("merge", *files, "-o", tmp_path / "all.json", "--json")
    assert merged.exit_code == 0, merged.output
    told = json.loads(merged.stdout)
    each = [json.loads(run("show", file, "--json").stdout) for file in files]
    assert told["num_requests"] == 80
    assert told["num_overlaps"] == sum(one["num_overlaps"] for one in each) > 20
    assert json.loads(run("show", tmp_path / "all.json", "--json").stdout) == told


def test_what_is_no_file_of_lessons_is_refused_by_name(files, tmp_path):
    (tmp_path / "other").write_text("{}")
    done = run("merge", files[0], tmp_path / "other", "-o", tmp_path / "all.json")
    assert isinstance(done.exception, ConfigurationError)
    assert str(tmp_path / "other") in str(done.exception)
    assert not (tmp_path / "all.json").exists()


def test_without_an_output_it_is_wrong_usage(files):
    assert run("merge", *files).exit_code == 2
