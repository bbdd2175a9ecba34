"""The commands together. Each lives in a file of its own; adding one is that file and a line of the table.

Those files import typer and what names their options, and nothing else until they run, so that help costs
what it says and no more.
"""

import os
import sys
from typing import Annotated

import typer

from milepost.cli.cache import cache
from milepost.cli.chat import chat
from milepost.cli.command import Command
from milepost.cli.demo import demo
from milepost.cli.footprint import footprint
from milepost.cli.generate import generate
from milepost.cli.lessons import lessons
from milepost.cli.messages import print_error, speak_plainly
from milepost.cli.policies import policies
from milepost.cli.probe import probe
from milepost.cli.recommend import recommend
from milepost.cli.report import report
from milepost.cli.serve import serve
from milepost.cli.simulate import simulate
from milepost.cli.sweep import sweep
from milepost.cli.top import top
from milepost.errors import MilepostError

__all__ = ["app", "main"]

app = typer.Typer(
    # Plain text wraps where boxes cut, and is a third of the start of a help text.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 Ctrl-C. Results go to standard "
    "output, everything else to standard error.",
)

# In the order of the help.
_COMMANDS = (demo, serve, top, generate, chat, simulate, sweep, recommend, report, footprint, probe, policies)
for _command in _COMMANDS:
    app.command(cls=Command)(_command)
app.add_typer(cache, name="cache")
app.add_typer(lessons, name="lessons")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"milepost {version('milepost')}")
        raise typer.Exit


@app.callback(no_args_is_help=True)
def _milepost(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Sparse prefix caching for hybrid and recurrent language models: exact states at a few well-chosen
    prompt positions, the same outputs, a fraction of the prefill.
    """


def main() -> None:
    """Run the command line; errors become one line and an exit code. Typer sees to wrong usage and Ctrl-C."""
    # Advice about optional kernels would bury the answers; set the variable to see it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    speak_plainly()
    try:
        app()
    except MilepostError as error:
        print_error(error)
        sys.exit(1)
