"""The ``milepost`` command. Exit codes: 0 done, 1 something was refused, 2 wrong usage, 130 Ctrl-C."""

import sys

from milepost.errors import MissingExtraError
from milepost.extras import require_extra

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say what it takes to have one."""
    try:
        require_extra("cli", "typer", "rich", purpose="the milepost command")
    except MissingExtraError as error:
        sys.exit(f"Error: {type(error).__name__}: {error}")

    from milepost.cli.program import main as run_program

    run_program()
