"""``examples/serve``: what starts a server there is a command line that this build understands."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from milepost.byte_size import parse_bytes
from milepost.cli.program import app

FOLDER = Path(__file__).parents[1] / "examples" / "serve"
SERVE = typer.main.get_command(app).commands["serve"]


def of_the_unit() -> list[str]:
    text = (FOLDER / "milepost.service").read_text().replace("\\\n", " ")
    return shlex.split(re.search(r"^ExecStart=(.*)$", text, flags=re.M).group(1))[1:]


def of_the_image() -> list[str]:
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
    return json.loads(re.search(r"^CMD (\[.*\])$", text, flags=re.M).group(1))


def of_the_composition() -> list[str]:
    return service()["command"]


def service() -> dict:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["milepost"]


def options_of(command: list[str]) -> dict:
    name, *arguments = command
    assert name == "serve"
    return SERVE.make_context(name, list(arguments)).params


COMMANDS = {"unit": of_the_unit, "image": of_the_image, "composition": of_the_composition}


def test_an_option_that_is_gone_would_be_noticed():
    with pytest.raises(typer.exceptions.TyperException, match="--cache-folder"):
        options_of(["serve", "--cache-folder", "x"])


@pytest.mark.parametrize("which", COMMANDS)
def test_a_server_keeps_its_cache_asks_for_keys_and_leaves_air(which):
    options = options_of(COMMANDS[which]())
    assert options["cache_dir"] is not None
    assert options["disk_capacity"] is not None
    assert options["api_key_file"] is not None
    # Beside both: the model, torch and the interpreter.
    unit = (FOLDER / "milepost.service").read_text()
    limits = [re.search(r"^MemoryMax=(\d+)G$", unit, flags=re.M).group(1), service()["mem_limit"].rstrip("g")]
    taken = parse_bytes(options["capacity"]) + parse_bytes(options["live_capacity"])
    assert all(taken <= parse_bytes(f"{limit}GiB") // 2 for limit in limits)


def test_the_composition_says_what_the_image_does():
    assert options_of(of_the_composition()) == options_of(of_the_image())


def test_only_this_machine_reaches_either():
    assert options_of(of_the_unit())["host"] == "127.0.0.1"
    assert all(mapping.startswith("127.0.0.1:") for mapping in service()["ports"])


def test_what_is_written_lies_where_it_outlives_the_process():
    """The rest of the file system is read-only for the server."""
    [volume] = service()["volumes"]
    folder = Path(volume.split(":")[1])
    assert options_of(of_the_composition())["cache_dir"].is_relative_to(folder)
    image = (FOLDER / "Dockerfile").read_text()
    for variable in ("NUMBA_CACHE_DIR", "HF_HOME"):
        assert Path(re.search(rf"{variable}=(\S+)", image).group(1)).is_relative_to(folder)
    unit = (FOLDER / "milepost.service").read_text()
    kept = re.search(r"^CacheDirectory=(.*)$", unit, flags=re.M).group(1)
    for variable in ("NUMBA_CACHE_DIR", "HF_HOME"):
        assert re.search(rf"{variable}=%C/{kept}/", unit)
    assert str(options_of(of_the_unit())["cache_dir"]).startswith(f"%C/{kept}/")
