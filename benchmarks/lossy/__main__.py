"""``python -m benchmarks.lossy``: see the package."""

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import lossy
from benchmarks.lossy.models import FAMILIES, divergence_rows, open_embedded
from benchmarks.lossy.recorded import recorded_rows
from benchmarks.policies.points import missing_traces
from benchmarks.printing import Row, print_rows
from milepost.embedded import EMBEDDED

_PARTS = ("bytes", "divergence")
_NUM_DOCUMENTS = 8
_SHARES = (0.4, 0.7, 1.0)
# Right answers have up to 12.
_ANSWER_TOKENS = 13


def _measure(
    families: list[str], parts: list[str], num_prompts: int, traces: Path | None
) -> Iterator[tuple[str, list[Row]]]:
    # Tiny matrices: more threads only wait for each other.
    torch.set_num_threads(1)
    replayed: list[int] = []
    if EMBEDDED in families and "bytes" in parts:
        from benchmarks.lossy.equal_bytes import equal_bytes_rows

        rows, found = equal_bytes_rows(
            open_embedded(), num_documents=_NUM_DOCUMENTS, shares=_SHARES, answer_tokens=_ANSWER_TOKENS
        )
        yield "equal bytes and equal time, the embedded model", rows
        replayed = sorted({count for count in found.values() if count})
    for family in families if "divergence" in parts else ():
        yield f"divergence, {family}", divergence_rows(family, num_prompts, replayed=replayed)
    if traces is not None:
        yield "equal bytes, recorded traffic", recorded_rows(traces)


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lossy",
        description=lossy.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--family", action="append", choices=FAMILIES, metavar="NAME")
    parser.add_argument(
        "--part",
        action="append",
        choices=_PARTS,
        help="divergence of each model, or equal bytes on the embedded one; both unless given",
    )
    parser.add_argument("--prompts", type=int, default=100, metavar="N", help="of each model")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="recorded traces")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of tables")
    arguments = parser.parse_args()
    if arguments.prompts < 1:
        parser.error(f"--prompts={arguments.prompts}; give at least 1")
    if EMBEDDED not in (arguments.family or FAMILIES) and "divergence" not in (arguments.part or _PARTS):
        parser.error(
            f"--part bytes is measured on the {EMBEDDED} model alone; leave out --family, or name it"
        )
    if arguments.traces is not None and (reason := missing_traces(arguments.traces)):
        sys.exit(f"lossy: {reason}")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    reached = True
    for title, rows in _measure(
        arguments.family or list(FAMILIES),
        arguments.part or list(_PARTS),
        arguments.prompts,
        arguments.traces,
    ):
        Console(stderr=True).print(f"[bold]{title}[/]")
        print_rows(rows, as_json=arguments.json)
        reached &= all(row.reached for row in rows)
    sys.exit(not reached)


if __name__ == "__main__":
    main()
