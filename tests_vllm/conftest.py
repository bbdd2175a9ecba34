"""Shared by the tests inside vLLM; see ``make vllm-test``."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

VLLM = Path(find_spec("vllm").origin).parent
# A newer vLLM's Python files have none: see ``newer_vllm.py``.
HAS_KERNELS = any(VLLM.glob("_C*.so"))

# Before vLLM is imported, in every process.
os.environ.update(
    VLLM_CPU_OMP_THREADS_BIND="1",
    OMP_NUM_THREADS="1",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_LOGGING_LEVEL="WARNING",
    VLLM_NO_USAGE_STATS="1",
    HF_HUB_OFFLINE="1",
)
os.environ.pop("MILEPOST_VLLM", None)
if not HAS_KERNELS:
    # The other runner is chosen, and looks for a GPU, where the configuration is made.
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"


def pytest_addoption(parser):
    parser.addoption("--vllm", metavar="VERSION", help="the vLLM that is meant; any other is an error")
    parser.addoption(
        "--full", action="store_true", help="500 requests for each model, soaks of 10,000; half an hour"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "kernels: runs a model, which takes compiled code")
    meant, found = config.getoption("--vllm"), _vllm_version()
    if meant not in (None, found):
        raise pytest.UsageError(f"--vllm {meant} is meant, and vLLM {found} in {VLLM} would be tested")


def pytest_report_header():
    return f"vLLM {_vllm_version()} {'with' if HAS_KERNELS else 'without'} kernels, from {VLLM}"


def pytest_collection_modifyitems(items):
    if not HAS_KERNELS:
        skip = pytest.mark.skip(reason=f"vLLM {_vllm_version()} has no kernels here, so no model can run")
        for item in items:
            if item.get_closest_marker("kernels"):
                item.add_marker(skip)


def _vllm_version() -> str:
    import vllm

    return vllm.__version__.partition("+")[0]


@pytest.fixture(scope="session")
def is_full(request) -> bool:
    return request.config.getoption("--full")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Return a function that builds a tiny model, once, and returns its folder."""
    from benchmarks.vllm import models

    root = tmp_path_factory.mktemp("models")

    def build(name: str):
        folder = root / name
        return folder if folder.exists() else models.build(name, folder)

    return build
