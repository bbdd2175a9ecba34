"""Importing is inert: no tensor library, no logging, nothing but the names that are promised."""

import json
import subprocess
import sys

import milepost

HEAVY = ("torch", "transformers", "safetensors", "matplotlib")


def in_a_fresh_process(program: str):
    return json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)


def test_the_public_names_are_pinned():
    assert milepost.__all__ == [
        "CachePolicy",
        "Footprint",
        "Placement",
        "PlacementPolicy",
        "PlacementRequest",
        "PrefixCache",
        "parse_policy",
    ]
    assert all(hasattr(milepost, name) for name in milepost.__all__)


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
