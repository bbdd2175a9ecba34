"""Shared by the tests inside vLLM; see ``make vllm-test``."""

import os

import pytest

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


def pytest_addoption(parser):
    parser.addoption(
        "--full", action="store_true", help="500 requests for each model, soaks of 10,000; half an hour"
    )


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
