"""What the program says beside its results: one form for errors and for warnings, on standard error."""

import sys
import warnings
from typing import TextIO

import typer

from milepost.errors import MilepostError, MilepostWarning

__all__ = ["print_error", "speak_plainly"]


def print_error(error: MilepostError) -> None:
    """Print what was refused, and why, without a traceback."""
    typer.secho("Error:", fg="red", bold=True, nl=False, err=True)
    typer.echo(f" {type(error).__name__}: {error}", err=True)


def speak_plainly() -> None:
    """From now on, print our warnings as one line, and on a terminal also what makes people wait."""
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, MilepostWarning):
            typer.secho("Warning:", fg="yellow", bold=True, nl=False, err=True)
            typer.echo(f" {message}", err=True)
        else:
            others(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    if sys.stderr.isatty():
        import logging

        ours = logging.getLogger("milepost.kernels")
        ours.setLevel(logging.INFO)
        ours.addHandler(logging.StreamHandler())
