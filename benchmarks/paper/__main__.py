"""``python -m benchmarks.paper``: see the package."""

import argparse
import sys
from pathlib import Path

from benchmarks.paper import measure, missing_logs
from benchmarks.printing import print_rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description="The paper's own runs, replayed from its logs."
    )
    parser.add_argument("--logs", type=Path, required=True, metavar="DIR", help="folder of the paper's logs")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    arguments = parser.parse_args()
    if missing := missing_logs(arguments.logs):
        sys.exit(f"paper: skipped, {arguments.logs} lacks {', '.join(missing)}")
    print_rows(measure(arguments.logs), as_json=arguments.json)


if __name__ == "__main__":
    main()
