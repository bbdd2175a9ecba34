"""The commands together. Each lives in a file of its own; adding one is that file and a line of the table."""

import os
import sys

import typer
from rich.console import Console

from milepost.cli.demo import demo
from milepost.cli.footprint import footprint
from milepost.cli.generate import generate
from milepost.cli.policies import policies
from milepost.cli.probe import probe
from milepost.cli.recommend import recommend
from milepost.cli.report import report
from milepost.cli.simulate import simulate
from milepost.cli.sweep import sweep
from milepost.errors import MilepostError

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Sparse prefix caching for hybrid and recurrent language models: exact states at a few well-chosen "
    "prompt positions, the same outputs, a fraction of the prefill.",
)

# In the order of the help.
_COMMANDS = (demo, generate, simulate, sweep, recommend, report, footprint, probe, policies)
for _command in _COMMANDS:
    app.command()(_command)


def main() -> None:
    """Run the command line; errors become one line and an exit code. Typer sees to wrong usage and Ctrl-C."""
    console = Console(stderr=True)
    # Advice about optional kernels would bury the answers; whoever wants it sets the variable.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app(standalone_mode=True)
    except MilepostError as error:
        console.print(f"[bold red]Error:[/] {type(error).__name__}: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
