"""The formats of a line, and which one a trace is written in.

A trace has one format, that of its first good line: a line that fits another one is an error, so that a
file of two logs stuck together is noticed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from milepost.errors import InvalidRequestError
from milepost.traces.envelope import OpenedLine
from milepost.traces.fields import Labels
from milepost.traces.request import TraceRequest
from milepost.traces.turns import Turn
from milepost.traces.unusable import UnusableLogError, what_it_is

__all__ = ["LineFormat", "ParsedLine", "choose_format"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedLine:
    """What a line holds.

    Attributes:
        requests: One, or several that were sent together or are the turns of a whole conversation.
        is_conversation: Whether they are the turns of a whole conversation.
        media: Parts of the prompts that are no text, by kind; one entry a request.
        turn: Which turn of which conversation it is, where the log says so.
        num_ending_in_answer: Requests of which the last message is an answer.
    """

    requests: tuple[TraceRequest, ...]
    is_conversation: bool = False
    media: tuple[Mapping[str, int], ...] = field(default=())
    turn: Turn | None = None
    num_ending_in_answer: int = 0


class LineFormat(Protocol):
    """How a line of JSON becomes a request."""

    @property
    def fields(self) -> str:
        """What a line of this format must have, for messages."""

    def counts_milliseconds(self, line: OpenedLine) -> bool:
        """Return whether the ``timestamp`` of a line is in milliseconds."""

    def recognises(self, line: OpenedLine) -> bool:
        """Return whether a line is meant to be of this format, well-formed or not. Cheap."""

    def parse(self, line: OpenedLine, labels: Labels, *, place: str) -> ParsedLine:
        """Return the requests of a recognised line.

        Args:
            line: As it was opened.
            labels: Of each of its requests.
            place: Where it stands, as no other line does.

        Raises:
            InvalidRequestError: it is malformed; the message says in what.
        """


def choose_format(line: OpenedLine, formats: tuple[LineFormat, ...]) -> LineFormat:
    """Return the first format that recognises a line.

    Raises:
        InvalidRequestError: none does; the message says what the line is, where that can be told.
    """
    for line_format in formats:
        if line_format.recognises(line):
            return line_format
    known = "; or ".join(line_format.fields for line_format in formats)
    if (told := what_it_is(line.layers)) is not None:
        raise UnusableLogError(told)
    raise InvalidRequestError(f"the line is no request: it needs {known}")
