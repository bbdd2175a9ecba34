"""Shared by the tests inside SGLang; see ``make sglang-test``."""

import os
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("MILEPOST_SGLANG", None)

from benchmarks.sglang import absent_torchvision

absent_torchvision.stand_in()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="soaks of 10,000 requests; a quarter of an hour")


def pytest_report_header():
    return f"SGLang {version('sglang')}, whose cache and pools hold their tensors in the CPU's memory"
