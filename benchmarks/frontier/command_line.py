"""What the command line asks for, and what speaks against it: said before anything is measured for hours."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.frontier.measuring import OFF, OURS
from benchmarks.frontier.workloads import MADE_UP_WORKLOADS, PAPER_WORKLOADS, log_path
from milepost import parse_policy
from milepost.errors import MilepostError

__all__ = ["parse_options"]

_POLICIES = (OURS, "histogram-dp:4", "balanced:4", "vllm", "marconi")
_SHARES = (0.2, 0.5, 1.0)
# The largest budget of made-up traffic holds a fourth of its prompts.
_FEWEST_REQUESTS = 4


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options, ``workloads`` being the names of all that are to be run.

    Args:
        arguments: Those of this process unless given.

    Raises:
        SystemExit: something cannot be measured, compared or written; what and why is on the standard error.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.workloads is None:
        options.workloads = (*(PAPER_WORKLOADS if options.logs else ()), *MADE_UP_WORKLOADS)
    for objection in (
        _objection_to_numbers(options),
        _objection_to_policies(options.policies),
        _objection_to_workloads(options.workloads, options.logs),
        _objection_to_output(options.output, is_replay=options.replay),
    ):
        if objection is not None:
            parser.error(objection)
    return options


def _objection_to_numbers(options: argparse.Namespace) -> str | None:
    if options.requests < _FEWEST_REQUESTS:
        return f"--requests={options.requests}; give at least {_FEWEST_REQUESTS}"
    if options.turns < 1:
        return f"--turns={options.turns}; give at least 1"
    for share in options.shares:
        if not (math.isfinite(share) and share > 0):
            return f"--shares {share}; give numbers above 0"
    if twice := _twice(options.shares):
        return f"--shares names {twice} twice"
    return None


def _objection_to_policies(policies: Sequence[str]) -> str | None:
    for name in policies:
        try:
            parse_policy(name)
        except MilepostError as error:
            return f"--policies: {error}"
    if twice := _twice(policies):
        return f"--policies names {twice} twice"
    if OFF in policies:
        return f"--policies: {OFF} is the base of every ratio and is run in any case"
    if OURS not in policies or len(policies) == 1:
        return f"--policies: {OURS} is held against others; give it and at least one other"
    return None


def _objection_to_workloads(names: Sequence[str], logs: Path | None) -> str | None:
    needed = [name for name in names if name in PAPER_WORKLOADS]
    if needed and logs is None:
        return f"--workloads {' '.join(needed)}: rebuilt from the paper's logs; give their folder as --logs"
    missing = [path.name for name in needed if logs and not (path := log_path(logs, name)).is_file()]
    return f"--logs: {logs} lacks {', '.join(missing)}" if missing else None


def _objection_to_output(path: Path | None, *, is_replay: bool) -> str | None:
    if path is None:
        return None
    if is_replay:
        return "--output holds what was measured, and --replay measures nothing; leave one of them"
    if (path.exists() and not path.is_file()) or not os.access(path.parent, os.W_OK):
        return f"--output: no file can be written as {path}"
    return None


def _twice(given: Sequence[object]) -> object | None:
    return next((each for index, each in enumerate(given) if each in given[:index]), None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.frontier",
        description="What a byte of memory buys in time: policies under several budgets, capture included. "
        "Exit code 1 where a request had other logits than without a cache.",
    )
    parser.add_argument(
        "--logs",
        type=Path,
        metavar="DIR",
        help="folder of the paper's logs; without it, made-up traffic alone",
    )
    parser.add_argument("--full", action="store_true", help="published sizes and lengths, for a GPU")
    parser.add_argument(
        "--requests", type=int, default=40, help="requests of each workload (40; the paper has 400)"
    )
    parser.add_argument("--turns", type=int, default=2, help="times that everything is measured")
    parser.add_argument(
        "--policies", nargs="+", default=list(_POLICIES), help="names, as milepost simulate takes them"
    )
    parser.add_argument(
        "--shares",
        nargs="+",
        type=float,
        default=list(_SHARES),
        help="budgets, as shares of what holds all prompts that the paper's cache holds",
    )
    parser.add_argument(
        "--workloads",
        nargs="+",
        metavar="NAME",
        choices=(*PAPER_WORKLOADS, *MADE_UP_WORKLOADS),
        help=f"some of {', '.join((*PAPER_WORKLOADS, *MADE_UP_WORKLOADS))}",
    )
    parser.add_argument(
        "--replay", action="store_true", help="run no model: what is saved, not how long it takes"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write JSON that milepost report draws, after each workload anew",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    return parser
