"""Help teaches: whole sentences at any width, an example for each command, no more work than to print it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import milepost
from cli_commands import COMMANDS, PROGRAM
from milepost.cli.program import app

# What a help text has no need of. Each would cost it as much as all the rest, numba five times.
HEAVY = ("matplotlib", "numba", "numpy", "orjson", "rich", "torch", "transformers", "zstandard")


def loaded_by(*arguments: str, **environment: str) -> tuple[list[str], str]:
    """Run the command in a process of its own; return the heavy modules it loaded, and its output."""
    program = (
        "import json, sys\nsys.argv[0] = 'milepost'\nfrom milepost.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(milepost.__file__).parents[1])} | environment,
    )
    *lines, loaded = done.stdout.splitlines()
    return json.loads(loaded), "\n".join(lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["--no-such-option"],
        ["simulate"],
        *([*name.split(), "--help"] for name in COMMANDS),
    ],
    ids=" ".join,
)
def test_help_loads_nothing_that_it_does_not_need(arguments):
    assert loaded_by(*arguments)[0] == []


def test_shell_completion_loads_nothing_that_it_does_not_need():
    environment = {
        "_MILEPOST_COMPLETE": "complete_bash",
        "COMP_WORDS": "milepost simulate --cap",
        "COMP_CWORD": "2",
    }
    loaded, proposed = loaded_by(**environment)
    assert loaded == []
    assert "--capacity-kv-tokens" in proposed


def test_what_runs_does_load_it():
    assert {"numpy"} <= set(loaded_by("policies")[0]), "the control: the list above can be other than empty"


def pressed(text: str) -> str:
    return re.sub(r"\s", "", text)


def help_of(*arguments: str, columns: int) -> str:
    return CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": str(columns)}).output


@pytest.mark.parametrize("columns", [30, 80, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_and_no_sentence_is_cut_at_any_width(name, columns):
    shown = pressed(help_of(*name.split(), columns=columns))
    assert "…" not in shown
    for parameter in COMMANDS[name].params:
        if getattr(parameter, "hidden", False):
            continue
        assert pressed(parameter.help or "") in shown
        assert all(pressed(option) in shown for option in parameter.opts if option.startswith("-"))


@pytest.mark.parametrize("columns", [30, 80, 200])
def test_the_list_of_commands_has_a_whole_sentence_for_each(columns):
    shown = pressed(help_of(columns=columns))
    assert "…" not in shown
    assert "..." not in shown.replace("[ARGS]...", "")
    for name, command in PROGRAM.commands.items():
        first_sentence = re.split(r"\.\s", command.help + " ")[0]
        assert pressed(name + first_sentence) in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_of_itself(name):
    assert pressed(f"Try: `milepost {name}") in pressed(help_of(*name.split(), columns=80))


def test_exit_codes_are_documented():
    assert "0 done, 1 refused or failed, 2 wrong usage, 130 Ctrl-C" in " ".join(help_of(columns=80).split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "modles/qwen", "Hello"],
        ["footprint", "./no-such"],
        ["simulate", "synthetic:chat", "--model", "/no/such"],
        ["recommend", "log.jsonl", "--tokenizer", "no/such"],
    ],
    ids=" ".join,
)
def test_a_mistyped_model_is_refused_before_anything_is_loaded(arguments):
    assert loaded_by(*arguments, HF_HUB_OFFLINE="1") == ([], "")


def test_no_option_says_two_defaults():
    for name, command in COMMANDS.items():
        for parameter in command.params:
            shown = str(getattr(parameter, "help", "") or "")
            assert parameter.default is None or "Default:" not in shown, (name, parameter.name)
