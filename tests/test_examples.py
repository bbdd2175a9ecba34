"""Each file of ``examples/`` runs as it stands, and prints what its docstring says will be seen.

``inside_vllm.py`` is run by ``tests_vllm/test_example.py``.
"""

import ast
import doctest
import re
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "inside_vllm.py")
#: Numbers in the middle of noise may be written as ``...``.
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def docstring_of(name: str) -> str:
    return ast.get_docstring(ast.parse((FOLDER / name).read_text())) or ""


def promised_output(docstring: str) -> str:
    """Return the last indented block."""
    return textwrap.dedent(re.split(r"\n\n(?=    )", docstring)[-1]) + "\n"


def seen_is_promised(promised: str, seen: str) -> bool:
    return doctest.OutputChecker().check_output(promised, seen, FLAGS)


def test_other_numbers_and_missing_lines_would_be_noticed():
    assert seen_is_promised("1 of ... tokens\ndone\n", "1 of 2 tokens\ndone\n")
    assert not seen_is_promised("1 of ... tokens\ndone\n", "3 of 2 tokens\ndone\n")
    assert not seen_is_promised("1 of ... tokens\ndone\n", "1 of 2 tokens\n")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_says(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    seen = capsys.readouterr().out
    promised = promised_output(docstring_of(name))
    assert seen_is_promised(promised, seen), f"{name} printed\n{seen}\nand not\n{promised}"


@pytest.mark.parametrize("name", [*EXAMPLES, "inside_vllm.py"])
def test_an_example_says_how_it_is_run(name):
    assert f"python examples/{name}" in docstring_of(name)


def test_the_figure_is_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["replay_figure.py", "synthetic:chat,requests=20,seed=1"])
    runpy.run_path(str(FOLDER / "replay_figure.py"), run_name="__main__")
    assert (tmp_path / "reuse.png").read_bytes().startswith(b"\x89PNG")
