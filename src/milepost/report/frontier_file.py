"""A file of measured runs, as ``python -m benchmarks.frontier --output`` writes it.

What a policy costs and saves on a real engine, where a trace's study (``study``) says what it would reuse.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.errors import ConfigurationError

__all__ = ["FORMAT", "MeasuredFrontier", "MeasuredRun", "is_frontier_file", "read_frontier"]

FORMAT = "milepost frontier 1"
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
    """Return whether ``path`` begins as such a file does; what cannot be read does not."""
    try:
        with Path(path).open("rb") as file:
            return FORMAT.encode() in file.read(_MOST_SNIFFED_BYTES)
    except OSError:
        return False


def read_frontier(path: str | Path) -> list[MeasuredFrontier]:
    """Return the workloads of a file.

    Raises:
        ConfigurationError: it is no such file, or was cut off.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        found = [_workload(each, content["model"]) for each in content["workloads"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} holds no measured runs ({error}); write it with python -m benchmarks.frontier --output"
        ) from error
    return found


def _workload(given: Mapping[str, Any], model: str) -> MeasuredFrontier:
    runs: Sequence[Mapping[str, Any]] = given["runs"]
    return MeasuredFrontier(
        title=str(given["title"]),
        model=str(model),
        runs=tuple(_run(run) for run in runs if run["policy"] != "none"),
    )


def _run(given: Mapping[str, Any]) -> MeasuredRun:
    ratios = tuple(float(ratio) for ratio in given["off_ratios"])
    return MeasuredRun(
        policy=str(given["policy"]),
        capacity_bytes=int(given["capacity_bytes"]),
        off_ratio=statistics.median(ratios),
        off_ratios=ratios,
        saved_fraction=float(given["saved_fraction"]),
        checkpoints_per_entry=float(given["checkpoints_per_entry"]),
    )
