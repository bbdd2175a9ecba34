"""The page about logs: its examples are read, each as it stands there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "logs.md"
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_examples_of_every_format():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example[:40])
def test_each_line_of_an_example_is_read(log, example):
    for number, line in enumerate(example.splitlines()):
        assert len(list(log(line, name=f"{number}.jsonl"))) == 1


def test_options_that_the_page_names_are_options():
    import typer

    from milepost.cli.program import app

    options = {
        option
        for parameter in typer.main.get_command(app).commands["simulate"].params
        for option in parameter.opts
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE.read_text(encoding="utf-8")))
    assert named - {"--json"} <= options
