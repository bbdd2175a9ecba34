"""A file of measured runs, as ``python -m benchmarks.frontier --output`` writes it.

What a policy costs and saves on a real engine, where a trace's study (``study``) says what it would reuse.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.errors import ConfigurationError

__all__ = ["FORMAT", "MeasuredFrontier", "MeasuredRun", "is_frontier_file", "read_frontier"]

_ANY_VERSION = "milepost frontier "
FORMAT = f"{_ANY_VERSION}1"
_MOST_SNIFFED_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """One policy under one budget.

    Attributes:
        policy: Its name.
        capacity_bytes: The budget.
        off_ratio: Total time to first tokens, capture included, over that without a cache: the median.
        off_ratios: Of each turn.
        saved_fraction: Prompt tokens that were not computed.
        checkpoints_per_entry: Held for each prompt that the largest budget has room for, on average.
    """

    policy: str
    capacity_bytes: int
    off_ratio: float
    off_ratios: tuple[float, ...]
    saved_fraction: float
    checkpoints_per_entry: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFrontier:
    """One workload.

    Attributes:
        title: For people.
        model: What ran.
        runs: Of all policies and budgets, the cache that is off left out.
    """

    title: str
    model: str
    runs: tuple[MeasuredRun, ...]

    @property
    def policies(self) -> tuple[str, ...]:
        """In the order they were given."""
        return tuple(dict.fromkeys(run.policy for run in self.runs))

    def of(self, policy: str) -> list[MeasuredRun]:
        """Return the runs of one policy, the smallest budget first."""
        return sorted((run for run in self.runs if run.policy == policy), key=lambda run: run.capacity_bytes)


def is_frontier_file(path: str | Path) -> bool:
    """Return whether ``path`` begins as such a file of any version does; what cannot be read does not."""
    try:
        with Path(path).open("rb") as file:
            return _ANY_VERSION.encode() in file.read(_MOST_SNIFFED_BYTES)
    except OSError:
        return False


def read_frontier(path: str | Path) -> list[MeasuredFrontier]:
    """Return the workloads of a file.

    Raises:
        ConfigurationError: it is no such file, is of another version, was cut off, or holds what no run
            measures, such as no run at all.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, and {FORMAT!r} is read")
        found = [_workload(each, content["model"]) for each in content["workloads"]]
        if not found:
            raise ValueError("no workload")
    # An endless number, or brackets without end, are neither of the others.
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} holds no measured runs ({error}); write it with python -m benchmarks.frontier --output"
        ) from error
    return found


def _workload(given: Mapping[str, Any], model: str) -> MeasuredFrontier:
    title = str(given["title"])
    given_runs: Sequence[Mapping[str, Any]] = given["runs"]
    runs = tuple(_run(run) for run in given_runs if run["policy"] != "none")
    if not runs:
        raise ValueError(f"{title}: no run with a cache")
    return MeasuredFrontier(title=title, model=str(model), runs=runs)


def _run(given: Mapping[str, Any]) -> MeasuredRun:
    ratios = tuple(_number(ratio, "off_ratios") for ratio in given["off_ratios"])
    return MeasuredRun(
        policy=str(given["policy"]),
        capacity_bytes=int(_number(given["capacity_bytes"], "capacity_bytes")),
        off_ratio=statistics.median(ratios),
        off_ratios=ratios,
        saved_fraction=_number(given["saved_fraction"], "saved_fraction", most=1.0),
        checkpoints_per_entry=_number(given["checkpoints_per_entry"], "checkpoints_per_entry"),
    )


def _number(given: Any, name: str, *, most: float = math.inf) -> float:
    number = float(given)
    if not (math.isfinite(number) and 0 <= number <= most):
        raise ValueError(f"{name} is {given!r}")
    return number
