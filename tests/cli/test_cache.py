"""``milepost cache``: what is kept is listed, damage is found, and nothing is removed unasked."""

import json
import os
import subprocess
import sys
import time

import pytest
from small_payloads import MODEL, OTHER_MODEL, NumbersCodec, entry, key_of, payload
from typer.testing import CliRunner

from milepost.cli.program import app
from milepost.disk import DiskFolder
from milepost.errors import ConfigurationError

DAY = 86_400


@pytest.fixture
def folder(tmp_path):
    """A folder with two models, whose payloads were used a day apart: the last of them today."""
    path = tmp_path / "cache"
    for facts, numbers in ((OTHER_MODEL, (1, 2)), (MODEL, (3, 4, 5))):
        clock = iter([time.time(), *(time.time() - DAY * (5 - number) - 60 for number in numbers)])
        opened = DiskFolder.open(path, facts=facts, capacity_bytes=1 << 20, clock=clock.__next__)
        for number in numbers:
            opened.write(entry(number), NumbersCodec().pack(payload(number)))
        opened.close()
    return path


def run(*arguments, text=None):
    return CliRunner().invoke(app, ["cache", *map(str, arguments)], input=text)


def listed(folder):
    return {
        each["name"]: each
        for each in json.loads(run("inspect", "--cache-dir", folder, "--json").stdout)["models"]
    }


def file_of(folder, number):
    return next(folder.rglob(f"{key_of(number)}.safetensors"))


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_inspect_says_what_is_kept_of_each_model(folder):
    found = listed(folder)
    assert found.keys() == {"small", "other"}
    small = found["small"]
    assert (small["states"], small["kv_segments"], small["raw_bytes"]) == (3, 0, 3 * 1600)
    assert small["stored_bytes"] == sum(file_of(folder, each).stat().st_size for each in (3, 4, 5))
    assert small["compression"] == small["raw_bytes"] / small["stored_bytes"]
    assert small["newest"] - small["oldest"] == pytest.approx(2 * DAY, abs=5)

    text = run("inspect", "--cache-dir", folder).stdout
    assert "small" in text
    assert "3 of 4.8 kB" in text


def test_inspect_works_while_a_server_holds_the_folder(folder):
    opened = DiskFolder.open(folder, facts=MODEL, capacity_bytes=1 << 20)
    assert listed(folder)["small"]["states"] == 3
    assert run("verify", "--cache-dir", folder).exit_code == 0
    refused = run("prune", "--cache-dir", folder, "--all", "--yes")
    assert isinstance(refused.exception, ConfigurationError)
    assert "used by another process" in str(refused.exception)
    opened.close()


def test_verify_names_what_is_damaged_and_removes_it_when_asked(folder):
    assert run("verify", "--cache-dir", folder).stdout == "all is as it was written\n"
    damage(file_of(folder, 4))
    file_of(folder, 1).unlink()
    for _ in range(2):
        done = run("verify", "--cache-dir", folder)
        assert done.exit_code == 1
        assert f"{key_of(4)}: checksum: " in done.stdout
        assert f"{key_of(1)}: missing: " in done.stdout
        assert "2 damaged\n" in done.stdout
    done = run("verify", "--cache-dir", folder, "--remove", "--json")
    assert done.exit_code == 1
    assert {each["key"] for each in json.loads(done.stdout)["damaged"]} == {key_of(1), key_of(4)}
    assert run("verify", "--cache-dir", folder).exit_code == 0
    assert (listed(folder)["small"]["states"], listed(folder)["other"]["states"]) == (2, 1)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--to", "0"], []),
        (["--to", "5kB"], [4, 5]),
        (["--to", "1GiB"], [1, 2, 3, 4, 5]),
        (["--older-than", "36h"], [4, 5]),
        (["--older-than", "36h", "--model", "other"], [3, 4, 5]),
        (["--older-than", "36h", "--model", OTHER_MODEL.identity[:8]], [3, 4, 5]),
        (["--all"], []),
        (["--all", "--model", "small"], [1, 2]),
        (["--to", "2500", "--model", "small"], [1, 2, 5]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_prune_removes_what_was_unused_for_longest(folder, options, left):
    done = run("prune", "--cache-dir", folder, *options, "--yes")
    assert done.exit_code == 0, done.exception
    kept = {path.stem for path in folder.rglob("*.safetensors")}
    assert kept == {key_of(number) for number in left}
    assert sum(each["states"] for each in listed(folder).values()) == len(left)
    assert run("verify", "--cache-dir", folder).exit_code == 0


def test_prune_asks_first(folder):
    done = run("prune", "--cache-dir", folder, "--all", text="n\n")
    assert done.exit_code == 1
    assert "Remove 5 payloads" in done.stderr
    assert len(list(folder.rglob("*.safetensors"))) == 5
    assert run("prune", "--cache-dir", folder, "--all", text="y\n").exit_code == 0
    assert not list(folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "nothing says what to remove"),
        (["prune", "--all", "--to", "1GiB"], "--all leaves nothing"),
        (["prune", "--older-than", "soon", "--yes"], "'soon' is no age"),
        (["prune", "--to", "much", "--yes"], "'much' is not an amount"),
        (
            ["prune", "--all", "--model", "huge", "--yes"],
            r"no model 'huge' is kept .* there are: other, small",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_a_clear_error(folder, arguments, message):
    command, *options = arguments
    done = run(command, "--cache-dir", folder, *options)
    with pytest.raises(ConfigurationError, match=message):
        raise done.exception
    assert len(list(folder.rglob("*.safetensors"))) == 5


@pytest.mark.parametrize("command", ["inspect", "verify", "verify --remove", "prune --all --yes"])
def test_a_folder_that_is_none_is_left_as_it_is(tmp_path, command):
    name, *options = command.split()
    done = run(name, "--cache-dir", tmp_path, *options)
    with pytest.raises(ConfigurationError, match="is no cache folder"):
        raise done.exception
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_index_is_said(folder):
    (folder / "index.sqlite3").write_bytes(b"no database at all")
    done = run("inspect", "--cache-dir", folder)
    with pytest.raises(ConfigurationError, match=r"index of .* cannot be read"):
        raise done.exception


def test_errors_are_a_line_and_an_exit_code(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "milepost", "cache", "inspect", "--cache-dir", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 1
    assert "is no cache folder" in done.stderr
    assert "Traceback" not in done.stderr
