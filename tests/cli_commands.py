"""Every command of the program by what one types for it, those of groups such as ``cache`` among them."""

from collections.abc import Iterator

import typer

from milepost.cli.program import app

__all__ = ["COMMANDS", "PROGRAM"]

PROGRAM = typer.main.get_command(app)


def _walk(group, *before: str) -> Iterator[tuple[str, object]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, *before, name)
        else:
            yield " ".join((*before, name)), command


COMMANDS = dict(_walk(PROGRAM))
