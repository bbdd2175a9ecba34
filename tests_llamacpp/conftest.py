"""Shared by the tests on llama.cpp; see ``make llamacpp-test``."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def gguf(tmp_path_factory):
    """Return a function that writes a tiny random model, once, and returns its path."""
    from benchmarks.llamacpp.gguf_file import write_gguf

    root = tmp_path_factory.mktemp("gguf")

    def write(name: str, weights: str = "f32", *, seed: int = 0) -> Path:
        path = root / f"{name}-{weights}-{seed}.gguf"
        return path if path.exists() else write_gguf(path, name, weights=weights, seed=seed)

    return write


@pytest.fixture
def open_driver(gguf):
    """Return a function that opens what runs a tiny model, not probed."""
    from milepost.engines.llamacpp.opening import open_driver

    opened = []

    def open_one(name: str, weights: str = "f32", *, is_strict: bool = True, seed: int = 0, **kv_types: str):
        driver, _ = open_driver(gguf(name, weights, seed=seed), is_strict=is_strict, **kv_types)
        opened.append(driver)
        return driver

    yield open_one
    for driver in opened:
        driver.release()
