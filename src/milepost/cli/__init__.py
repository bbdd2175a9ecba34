"""The ``milepost`` command. Exit codes: 0 done, 1 something was refused, 2 wrong usage, 130 Ctrl-C."""

from milepost.cli.program import app, main

__all__ = ["app", "main"]
