"""Importing is inert: no tensor library, no logging, nothing but the names that are promised."""

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import milepost
from milepost import errors

HEAVY = ("torch", "transformers", "safetensors", "matplotlib")


def in_a_fresh_process(program: str):
    return json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)


def test_the_public_names_are_pinned():
    assert milepost.__all__ == [
        *("AuditError", "CacheCorruptionError", "CachePolicy", "CapacityError", "ConcurrentUseError"),
        *("ConfigurationError", "ContentlessPayloads", "ContextLengthError"),
        *("Engine", "EngineError", "EvictionPolicy"),
        "Footprint",
        *(
            "HostedCache",
            "InvalidRequestError",
            "KernelCacheWarning",
            "Lease",
            "MilepostError",
            "MilepostWarning",
        ),
        *("MissingExtraError", "ModelChangedError", "ModelLoadError", "PayloadSource", "Placement"),
        *("PlacementPolicy", "PlacementRequest", "PrefixCache", "RequestReport", "TraceFormatError"),
        *("UnsupportedModelError", "open_trace", "parse_policy", "simulate"),
    ]


@pytest.mark.parametrize("name", milepost.__all__)
def test_a_public_name_is_the_thing_it_says_wherever_it_comes_from(name):
    thing = getattr(milepost, name)
    assert thing.__name__ == name
    assert getattr(import_module(thing.__module__), name) is thing
    assert name in dir(milepost)


def test_type_checkers_see_every_public_name():
    source = ast.parse(Path(milepost.__file__).read_text())
    (only_for_types,) = (node for node in source.body if isinstance(node, ast.If))
    seen = {
        alias.name: imported.module
        for imported in only_for_types.body
        if isinstance(imported, ast.ImportFrom)
        for alias in imported.names
    }
    assert sorted(seen) == sorted(milepost.__all__)
    for name, home in seen.items():
        assert getattr(import_module(home), name) is getattr(milepost, name)


def test_all_errors_are_public():
    assert set(errors.__all__) <= set(milepost.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'milepost' has no attribute 'Enigne'"):
        milepost.Enigne  # noqa: B018


def test_importing_the_package_loads_nothing_of_it():
    program = (
        "import json, sys, milepost; dir(milepost);"
        "print(json.dumps([name for name in sys.modules if name.startswith('milepost.')]))"
    )
    assert in_a_fresh_process(program) == []


# What is left of an environment where only the core is installed.
WITHOUT = """
import sys
HIDDEN = {"torch", "transformers", "safetensors", "tokenizers", "typer", "rich", "matplotlib", "jinja2"}
class Hiding:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)
sys.meta_path = [Hiding(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
"""


def without_extras(program: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + program], check=False, capture_output=True, text=True
    )


def test_the_core_needs_no_extra():
    program = """
import milepost
for name in milepost.__all__:
    if name != "Engine": getattr(milepost, name)
trace = milepost.open_trace("synthetic:chat,requests=5,seed=1")
result = milepost.simulate(trace, policy="tail", capacity_kv_tokens=10_000, checkpoint_kv_tokens=500)
print(result.num_requests)
"""
    done = without_extras(program)
    assert (done.stdout, done.stderr) == ("5\n", "")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("from milepost import Engine", "needs torch, transformers; pip install 'milepost[tran"),
        (
            "import milepost.demo.command",
            "needs torch, transformers, safetensors; pip install 'milepost[tran",
        ),
        (
            "from milepost.chat.opening import open_tokenizer as f; f('.')",
            "pip install 'milepost[transformers]'",
        ),
        ("from milepost.report.drawing_library import load_matplotlib as f; f('it')", "'milepost[report]'"),
        (
            "from milepost.cli import main; main()",
            "the milepost command needs typer, rich; pip install 'milepo",
        ),
    ],
)
def test_what_needs_an_extra_names_it(program, says):
    done = without_extras(program)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(("milepost.errors.MissingExtraError: ", "Error: Missing"))
    assert says in done.stderr.splitlines()[-1]


def test_importing_the_core_and_the_command_line_leaves_tensor_libraries_unloaded():
    program = (
        "import json, sys, milepost, milepost.cli, milepost.prefix_cache, milepost.errors;"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    assert in_a_fresh_process(program) == []


def test_the_vllm_entry_point_loads_nothing_while_it_is_switched_off():
    # vLLM on a CPU cannot start its worker once llvmlite is loaded, which numba brings.
    program = (
        "import json, sys; from milepost.vllm.plugin import register; register();"
        f"print(json.dumps([name for name in {(*HEAVY, 'numba', 'numpy', 'vllm')} if name in sys.modules]))"
    )
    assert in_a_fresh_process(program) == []


def test_importing_configures_no_logging_and_takes_no_signal():
    program = (
        "import json, logging, signal; before = signal.getsignal(signal.SIGINT);"
        "import milepost; ours = logging.getLogger('milepost');"
        "print(json.dumps([len(logging.root.handlers), logging.root.level, len(ours.handlers), ours.level,"
        "signal.getsignal(signal.SIGINT) is before]))"
    )
    assert in_a_fresh_process(program) == [0, 30, 0, 0, True]
