"""What starting costs: CPU seconds of help texts, of the first compilation of kernels, and of later starts.

    python -m benchmarks.startup [--against FOLDER] [--runs 20] [--cold-runs 3]

FOLDER is another checkout, such as one made by ``git worktree add FOLDER COMMIT``. Both run in turns, in this
environment, each in a process of its own; what counts is the median of user and system time of the process,
on which other work on the machine has little influence. A cold run has an empty cache for compiled kernels.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_LEARNED = "from milepost.policies import parse_policy; parse_policy('learned')"
_HISTOGRAM = "from milepost.policies import parse_policy; parse_policy('histogram-dp:8')"
_REPLAY = (
    *("-m", "milepost", "simulate", "synthetic:documents,requests=50,seed=1", "--policy", "learned"),
    *("--capacity-kv-tokens", "100k", "--checkpoint-kv-tokens", "1536"),
)


@dataclass(frozen=True, slots=True)
class _Start:
    """One way to start: its name, what Python is given, and whether kernels must be compiled."""

    name: str
    arguments: tuple[str, ...]
    is_cold: bool = False


_STARTS = (
    _Start("python", ("-c", "pass")),
    _Start("milepost --help", ("-m", "milepost", "--help")),
    _Start("milepost simulate --help", ("-m", "milepost", "simulate", "--help")),
    _Start("milepost policies", ("-m", "milepost", "policies")),
    _Start("policy learned, kernels kept", ("-c", _LEARNED)),
    _Start("policy learned, first compilation", ("-c", _LEARNED), is_cold=True),
    _Start("policy histogram-dp, first compilation", ("-c", _HISTOGRAM), is_cold=True),
    _Start("milepost simulate, first compilation", _REPLAY, is_cold=True),
)


def cpu_seconds(arguments: tuple[str, ...], *, checkout: Path, cache: Path) -> float:
    """Return user and system time of one process of the sources in ``checkout``."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "NUMBA_CACHE_DIR": str(cache)}
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} in {checkout}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def measure(start: _Start, checkouts: list[Path], *, runs: int) -> list[float]:
    """Return the median of each checkout, all of them run in turns."""
    seconds: list[list[float]] = [[] for _ in checkouts]
    with tempfile.TemporaryDirectory() as folder:
        if not start.is_cold:
            for index, checkout in enumerate(checkouts):
                cpu_seconds(start.arguments, checkout=checkout, cache=Path(folder, str(index)))
        for run in range(runs):
            for index, checkout in enumerate(checkouts):
                cache = Path(folder, f"{index}-{run}" if start.is_cold else str(index))
                seconds[index].append(cpu_seconds(start.arguments, checkout=checkout, cache=cache))
    return [median(each) for each in seconds]


def main() -> None:
    """Measure every start and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout")
    parser.add_argument("--runs", type=int, default=20, help="of each warm start")
    parser.add_argument("--cold-runs", type=int, default=3, help="of each start that compiles")
    options = parser.parse_args()
    here = Path(__file__).parents[1]
    checkouts = [here] if options.against is None else [options.against, here]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="CPU seconds, medians", title_justify="left")
    table.add_column("start", no_wrap=True)
    for heading in ("runs", *(["there", "here", "ratio"] if options.against else ["here"])):
        table.add_column(heading, justify="right")
    for start in _STARTS:
        runs = options.cold_runs if start.is_cold else options.runs
        medians = measure(start, checkouts, runs=runs)
        ratio = [f"{medians[1] / medians[0]:.2f}"] if options.against else []
        table.add_row(start.name, str(runs), *(f"{each:.2f}" for each in medians), *ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
