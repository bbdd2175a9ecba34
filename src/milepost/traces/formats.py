"""The formats of a line, and which one a trace is written in.

A trace has one format, that of its first good line: a line that fits another one is an error, so that a
file of two logs stuck together is noticed.
"""

from typing import Any, Protocol

from milepost.errors import InvalidRequestError
from milepost.traces.request import TraceRequest

__all__ = ["LineFormat", "choose_format"]


class LineFormat(Protocol):
    """How a line of JSON becomes a request."""

    @property
    def fields(self) -> str:
        """What a line of this format must have, for messages."""

    def recognises(self, record: Any) -> bool:
        """Return whether ``record`` is meant to be of this format, well-formed or not. Cheap."""

    def parse(self, record: Any, *, line_number: int) -> TraceRequest:
        """Return the request of a recognised record.

        Raises:
            InvalidRequestError: it is malformed; the message says in what.
        """


def choose_format(record: Any, formats: tuple[LineFormat, ...]) -> LineFormat:
    """Return the first format that recognises ``record``.

    Raises:
        InvalidRequestError: none does.
    """
    for line_format in formats:
        if line_format.recognises(record):
            return line_format
    known = "; or ".join(line_format.fields for line_format in formats)
    raise InvalidRequestError(f"the line is no request: it needs {known}")
