"""What the commands of these benchmarks have in common: their arguments, and an end with a way out."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.vllm.traffic.asks import Workload

__all__ = ["built_model", "chosen_workloads", "new_parser", "parse", "take_workloads"]

_NO_VLLM = """\
vLLM is not installed here, so there is nothing to measure. `make vllm-test` gives it an environment of its
own; run this command with that one:

    .venv-vllm/bin/python -m benchmarks.vllm"""


def new_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser that explains itself, with the options that every command has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="qwen3-next", metavar="NAME", help="of benchmarks/vllm/models.py")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    return parser


def take_workloads(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is asked, and how many at a time."""
    parser.add_argument("--workload", action="append", metavar="NAME", help="may be repeated; all by default")
    parser.add_argument("--trace", metavar="LOG", help="log of block hashes (JSON lines, .gz or .zst)")
    parser.add_argument("--pool", type=int, metavar="TOKENS", help="size of the pool in tokens of KV")
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[1, 4], metavar="N", help="requests at a time: 1 4"
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests, one turn")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the arguments; end the program with exit code 2 where they are wrong or vLLM is missing."""
    arguments = parser.parse_args()
    if find_spec("vllm") is None:
        print(_NO_VLLM, file=sys.stderr)
        sys.exit(2)
    from benchmarks.vllm.models import MODELS

    if arguments.model not in MODELS:
        parser.error(f"no model named {arguments.model!r}; there are {', '.join(MODELS)}")
    return arguments


def chosen_workloads(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace, *, default: Sequence[str]
) -> list[Workload]:
    """Return the workloads that are named, or those of ``default`` and the trace if there is one."""
    from benchmarks.vllm.traffic.workloads import build
    from milepost.errors import MilepostError

    names = arguments.workload or [*default, *(["trace"] if arguments.trace else [])]
    try:
        chosen = [build(name, quick=arguments.quick, trace=arguments.trace) for name in names]
    except (ValueError, MilepostError) as error:
        parser.error(str(error))
    if arguments.pool is None:
        return chosen
    return [replace(workload, pool_tokens=arguments.pool) for workload in chosen]


@contextmanager
def built_model(name: str) -> Iterator[Path]:
    """Build a model for as long as it is needed."""
    from benchmarks.vllm.models import build

    with TemporaryDirectory() as folder:
        yield build(name, Path(folder))
