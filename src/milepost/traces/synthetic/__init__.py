"""Made-up traffic: seeded, deterministic, in constant memory."""

from milepost.traces.synthetic.registry import (
    SYNTHETIC_PREFIX,
    WORKLOADS,
    describe_workloads,
    open_synthetic,
    parse_workload,
)
from milepost.traces.synthetic.workload import Workload, generate

__all__ = [
    "SYNTHETIC_PREFIX",
    "WORKLOADS",
    "Workload",
    "describe_workloads",
    "generate",
    "open_synthetic",
    "parse_workload",
]
