"""``milepost top``."""

from typing import Annotated

import typer

from milepost.cli.options import Json

__all__ = ["top"]


def top(
    url: Annotated[str, typer.Argument(metavar="[URL]", help="Of the server.")] = "http://127.0.0.1:8000",
    operator_key: Annotated[
        str | None,
        typer.Option(envvar="MILEPOST_OPERATOR_KEY", help="As given to the server, where it has API keys."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print what there is, and end.")] = False,
    as_json: Json = False,
    every: Annotated[
        float, typer.Option(min=0.5, max=3600.0, metavar="SECONDS", help="How often it is asked.")
    ] = 1.0,
) -> None:
    """Watch a server: what its cache reuses, why the rest is lost, and what lies where.

    The same as its live page, in a terminal; Ctrl-C ends it. With --json, a snapshot a line; docs/watching.md
    says what is in it.

    Try: `milepost top --once`
    """
    import sys

    from milepost.cli.top_reading import StatusReader
    from milepost.cli.top_screen import watch

    reader = StatusReader(url, operator_key=operator_key)
    if not as_json:
        watch(reader, every_seconds=every, once=once)
        return
    import time

    while True:
        sys.stdout.buffer.write(reader.read_bytes() + b"\n")
        sys.stdout.flush()
        if once:
            return
        time.sleep(every)
