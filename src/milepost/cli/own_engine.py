"""The engine that a command opens for itself, for one request at a time."""

import typer

from milepost.cli.options import ENGINE_OPTIONS
from milepost.embedded import resolve_model
from milepost.engines.engine import Engine

__all__ = ["open_engine"]


def open_engine(context: typer.Context, model: str) -> Engine:
    """Return an engine of ``model`` with the options of a command; the caller closes it."""
    given = {name: context.params[name] for name in ENGINE_OPTIONS}
    return Engine.open(resolve_model(model), max_running=1, **given)
