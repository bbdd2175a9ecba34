"""Kernels are compiled once, kept where that can be done, and work everywhere else too."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import milepost
from milepost.kernels import Kernel, kernel

# Two kernels of different files, some of what they compute, and the log of their compilation.
PROGRAM = """
import logging, sys
logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
logging.getLogger("milepost").setLevel(logging.INFO)
import numpy as np
from milepost.overlap.mixture import weight_inside
from milepost.reuse.hazard import _solve_indices
index = np.zeros((1, 2))
_solve_indices(np.full((1, 2), 1e-9), index)
print(weight_inside(np.arange(4), np.ones(4), 0, 4, 2), index.round(12).tolist())
"""
ANSWER = "2.0 [[1e-09, 1e-09]]\n"
NOWHERE = "/dev/null/no-folder"
WARNED, COMPILED, MENDED = "KernelCacheWarning", "compiling kernels", "has been made anew"
# Writing more than this fails, as on a full disk. SIGXFSZ is ignored by Python.
FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"

unix = pytest.mark.skipif(sys.platform == "win32", reason="folders that even root cannot write, as on Unix")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Return a folder with the package, beside which nothing can be kept: its cache folders are files."""
    folder = tmp_path_factory.mktemp("site")
    source = Path(milepost.__file__).parent
    shutil.copytree(source, folder / "milepost", ignore=shutil.ignore_patterns("__pycache__"))
    for each in (folder / "milepost", *(folder / "milepost").rglob("*")):
        if each.is_dir():
            (each / "__pycache__").touch()
    return folder


@pytest.fixture(scope="module")
def kept(package, tmp_path_factory) -> Path:
    """Return a cache with the kernels in it, not to be written."""
    folder = tmp_path_factory.mktemp("kept")
    first = run(package, cache=folder)
    assert first.count(COMPILED) == 1
    assert WARNED not in first
    return folder


@pytest.fixture
def own(kept, tmp_path) -> Path:
    """Return a cache of one's own with the kernels in it."""
    return shutil.copytree(kept, tmp_path / "cache")


def start(
    package: Path, *, cache: Path | str, program: str = PROGRAM, **environment: str
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(package), "HOME": NOWHERE, "NUMBA_CACHE_DIR": str(cache)} | environment,
    )


def finish(process: subprocess.Popen) -> str:
    """Return what it said beside the right answer."""
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, ANSWER), said
    return said


def run(package: Path, **options) -> str:
    return finish(start(package, **options))


def test_a_kernel_is_compiled_when_first_called_and_for_one_signature():
    @kernel("int64(int64[::1])")
    def total(numbers):
        result = 0
        for number in numbers:
            result += number
        return result

    assert not total.is_compiled
    assert total(np.arange(5)) == 10
    assert total.is_compiled
    with pytest.raises(TypeError, match="No matching definition"):
        total(np.arange(5.0))
    with pytest.raises(TypeError, match="No matching definition"):
        total(np.arange(10)[::2])


def test_importing_kernels_imports_no_compiler():
    program = "import sys, milepost.prefix_cache, milepost.policies; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_was_compiled_is_kept_and_nothing_is_said_where_nobody_waits(package, kept):
    assert run(package, cache=kept) == ""


@unix
@pytest.mark.parametrize("trouble", ["nowhere", "a file", "an unknown way to find it", "a full disk"])
def test_where_nothing_can_be_kept_it_works_and_warns_once(package, tmp_path, trouble):
    program, environment, folder = PROGRAM, {}, tmp_path / "cache"
    match trouble:
        case "nowhere":
            folder = NOWHERE
        case "a file":
            folder.touch()
        case "an unknown way to find it":
            environment = {"NUMBA_CACHE_LOCATOR_CLASSES": "NoSuchLocator"}
        case "a full disk":
            program = FULL_DISK + PROGRAM
    said = run(package, cache=folder, program=program, **environment)
    assert said.count("Warning: ") == said.count(WARNED) == 1
    assert said.count(COMPILED) == 1
    assert "set NUMBA_CACHE_DIR to a folder that this user can write" in said


@pytest.mark.parametrize("damage", [b"", b"garbage" * 100, None], ids=["empty", "garbage", "cut off"])
def test_a_damaged_cache_is_written_again(package, own, damage):
    # The index of one kernel, the code of the other.
    for path in (*own.rglob("mixture.*.nbi"), *own.rglob("hazard.*.nbc")):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    said = run(package, cache=own)
    assert said.count(MENDED) == 2
    assert WARNED not in said
    assert run(package, cache=own) == "", "the next process finds it whole"


def test_a_damaged_cache_that_cannot_be_mended_does_no_harm(package, own):
    for path in own.rglob("*.nbi"):
        path.unlink()
        path.mkdir()
    assert run(package, cache=own).count(WARNED) == 1


def test_another_processor_has_an_entry_of_its_own(package, own):
    other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert COMPILED in run(package, cache=own, **other), "the control: what is kept does not fit it"
    assert run(package, cache=own) == run(package, cache=own, **other) == ""


def test_processes_that_compile_at_once_do_not_disturb_each_other(package, tmp_path):
    processes = [start(package, cache=tmp_path) for _ in range(3)]
    assert all(WARNED not in finish(process) for process in processes)
    assert run(package, cache=tmp_path) == ""


def test_without_a_compiler_the_same_functions_run_as_they_are(package):
    assert run(package, cache=NOWHERE, NUMBA_DISABLE_JIT="1") == ""


@unix
def test_ctrl_c_waits_until_a_kernel_is_compiled(package):
    program = """
import logging, os, signal
from milepost.placement.worth import _trace_back as walk
signal.signal(signal.SIGINT, signal.default_int_handler)
class PressCtrlC(logging.Handler):
    def emit(self, record):
        os.kill(os.getpid(), signal.SIGINT)
log = logging.getLogger("milepost.kernels")
log.setLevel(logging.INFO)
log.addHandler(PressCtrlC())
try:
    walk.compiled()
except KeyboardInterrupt:
    print("interrupted, and compiled:", walk.is_compiled)
"""
    out, said = start(package, cache=NOWHERE, program=program).communicate(timeout=120)
    assert out == "interrupted, and compiled: True\n", said


def test_a_kernel_calls_kernels_of_its_own_file_alone():
    """What is kept is out of date when its own file changes, and nobody looks at others."""
    num_calls = 0
    for module in _modules_of_kernels():
        kernels = {name: each for name, each in vars(module).items() if isinstance(each, Kernel)}
        assert kernels, module.__name__
        for each in kernels.values():
            called = kernels.keys() & set(each.__wrapped__.__code__.co_names)
            assert all(kernels[name].__module__ == each.__module__ for name in called)
            num_calls += len(called)
    assert num_calls > 0


def _modules_of_kernels():
    """Return every module that has some: what they call is looked for in all of them."""
    sources = Path(milepost.__file__).parent
    files = [path for path in sources.rglob("*.py") if "@kernel(" in path.read_text(encoding="utf-8")]
    names = (".".join(path.relative_to(sources).with_suffix("").parts) for path in files)
    return [import_module(f"milepost.{name}") for name in names if name != "kernels"]
