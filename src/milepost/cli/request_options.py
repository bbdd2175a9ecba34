"""What a command was given that is a request's, under the names that both use."""

from typing import cast

import typer

from milepost.engines.requests import RequestOptions

__all__ = ["request_options"]


def request_options(context: typer.Context) -> RequestOptions:
    """Return the options of a request among those of a command."""
    known = RequestOptions.__annotations__
    given = {name: value for name, value in context.params.items() if name in known}
    return cast(RequestOptions, given)
