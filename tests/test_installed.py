"""The wheel as an administrator installs it, used by somebody who may write nowhere."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from milepost.cli.program import app

REPOSITORY = Path(__file__).parents[1]
NOBODY = 65534
# May read what root may, which is where the interpreter of a test can lie, and write what everybody may.
READ_ONLY = "-all,+dac_read_search"
DROP = [
    "setpriv",
    *(f"--{option}={NOBODY}" for option in ("reuid", "regid")),
    "--clear-groups",
    f"--inh-caps={READ_ONLY}",
    f"--ambient-caps={READ_ONLY}",
]
REPLAY = (
    "synthetic:documents,requests=40,seed=1",
    "--capacity-kv-tokens",
    "100k",
    "--checkpoint-kv-tokens",
    "1536",
)
ONE_KERNEL = (*REPLAY, "--policy", "histogram-dp:2")


def _cannot_drop() -> str | None:
    if sys.platform == "win32":
        return "users as on Unix"
    if os.geteuid() != 0:
        return None
    if shutil.which("setpriv") is None:
        return "root can write anywhere, and there is no setpriv to be somebody else"
    done = subprocess.run([*DROP, "true"], check=False, capture_output=True, text=True)
    return None if done.returncode == 0 else f"setpriv: {done.stderr.strip()}"


pytestmark = pytest.mark.skipif(_cannot_drop() is not None, reason=str(_cannot_drop()))


@pytest.fixture(scope="module")
def site():
    """Return a folder with the wheel unpacked in it, which is what installing does, not to be written."""
    pytest.importorskip("hatchling")
    # Under pytest's own folder nobody else may look.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", name]
        subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
        (wheel,) = folder.glob("*.whl")
        installed = folder / "site-packages"
        zipfile.ZipFile(wheel).extractall(installed)
        for path in (installed, *installed.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield installed
        for path in (installed, *installed.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def locked_down(site: Path, *command: str, folder: Path | None = None, **environment: str):
    return subprocess.run(
        [*(DROP if os.geteuid() == 0 else ()), sys.executable, *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder or "/",
        env={"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"} | environment,
    )


def milepost(site: Path, *arguments: str, **options) -> tuple[str, str]:
    """Run the command; return what it printed, and what it said beside it."""
    done = locked_down(site, "-m", "milepost", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def anywhere():
    """Return a folder that everybody may write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def here(*arguments: str) -> str:
    return CliRunner().invoke(app, arguments, prog_name="python -m milepost").stdout


def test_it_is_as_locked_down_as_it_says(site):
    program = (
        "import os, pathlib, milepost\n"
        "folder = pathlib.Path(milepost.__file__).parent\n"
        "print(folder)\n"
        "for place in (folder / 'x', pathlib.Path.home() / 'x'):\n"
        "    try: place.write_text('')\n"
        "    except OSError: print('refused')\n"
    )
    done = locked_down(site, "-c", program, HOME="/nonexistent")
    assert done.stdout == f"{site / 'milepost'}\nrefused\nrefused\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["policies"], ["--version"], ["simulate", "--help"]], ids=" ".join
)
def test_what_needs_no_kernel_says_nothing_about_them(site, arguments):
    out, said = milepost(site, *arguments)
    assert "".join(out.split()) == "".join(here(*arguments).split())
    assert said == ""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {
            "HOME": "/nonexistent",
            "NUMBA_CACHE_DIR": "/proc/no",
            "TMPDIR": "/proc/no",
            "XDG_CACHE_HOME": "/proc",
        },
    ],
    ids=["nothing", "garbage"],
)
def test_a_replay_says_once_that_kernels_are_compiled_anew_and_gives_the_same_numbers(site, environment):
    out, said = milepost(site, "simulate", *ONE_KERNEL, "--json", **environment)
    assert out == here("simulate", *ONE_KERNEL, "--json")
    assert said.startswith("Warning: compiled kernels cannot be kept")
    assert said.count("\n") == 1
    assert "set NUMBA_CACHE_DIR" in said


def test_the_remedy_helps(site, anywhere):
    for _ in range(2):
        _, said = milepost(site, "simulate", *ONE_KERNEL, "--json", NUMBA_CACHE_DIR=str(anywhere))
        assert said == ""


def test_the_processes_of_a_sweep_warn_once_together(site, anywhere):
    sweep = (
        "sweep",
        *ONE_KERNEL,
        "--policy",
        "histogram-dp:3",
        "--jobs",
        "2",
        "--output",
        "sweep.jsonl",
        "--json",
    )
    out, said = milepost(site, *sweep, folder=anywhere)
    assert [point["policy"] for point in json.loads(out)] == ["histogram-dp:2", "histogram-dp:3"]
    assert said.count("Warning:") == 1


def test_a_sweep_that_could_not_be_written_is_refused_before_it_is_run(site):
    done = locked_down(site, "-m", "milepost", "sweep", *ONE_KERNEL, "--output", "sweep.jsonl")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ConfigurationError: output=sweep.jsonl: this user may not write")


def test_a_report_is_drawn_with_one_warning(site, anywhere):
    pytest.importorskip("matplotlib")
    _, said = milepost(site, "report", *ONE_KERNEL, "--output", "page", folder=anywhere)
    assert [line.split()[0] for line in said.splitlines()] == ["Warning:", "Wrote"]
    assert (anywhere / "page" / "index.html").is_file()


def test_a_model_answers_under_the_default_policy(site):
    pytest.importorskip("torch")
    out, said = milepost(site, "generate", "embedded", "Hello", "--max-new-tokens", "1", "--json")
    assert json.loads(out)["report"]["num_tokens"] > 0
    assert said.count("Warning:") == 1


def test_a_model_says_what_it_costs(site, anywhere):
    config = {"model_type": "qwen3", "dtype": "bfloat16", "hidden_size": 64, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 128}
    (anywhere / "config.json").write_text(json.dumps(config))
    (anywhere / "config.json").chmod(0o644)
    out, said = milepost(site, "footprint", "config.json", "--json", folder=anywhere)
    assert json.loads(out)["kv_bytes_per_token"] == 2048
    assert said == ""
