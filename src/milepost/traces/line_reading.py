"""One value of a log: which model it is of, whether it was served, and the requests in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from milepost.errors import InvalidRequestError
from milepost.traces.envelope import OpenedLine, open_line, require_body
from milepost.traces.fields import Labels, labels_of, merged
from milepost.traces.formats import LineFormat, ParsedLine, choose_format
from milepost.traces.keys import FractionalIdError
from milepost.traces.outcome import endpoint_without_prompt, refusal_of, response_of
from milepost.traces.records import Entry, is_conversation
from milepost.traces.request import TraceRequest
from milepost.traces.sharing import sharing_of
from milepost.traces.turns import Turn
from milepost.traces.usage import logged_output_tokens, logged_prompt_tokens

__all__ = ["Line", "LineReader"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was read of a line.

    Attributes:
        requests: None where it was left out.
        model: Which model and adapter, for people; empty where none is named.
        salt: What else the server keeps it apart by.
        refused: Why it was left out as never computed.
        other_endpoint: The path that it was left out for.
        media: Of each request, its parts that are no text.
        is_conversation: Whether the requests are the turns of a whole conversation.
        turn: Which turn of which conversation it is.
        logged_tokens: Prompt tokens that the log counts; None where it does not.
        num_ending_in_answer: Requests of which the last message is an answer.
    """

    requests: tuple[TraceRequest, ...] = ()
    model: str = ""
    salt: str = ""
    refused: str | None = None
    other_endpoint: str | None = None
    media: tuple[Mapping[str, int], ...] = ()
    is_conversation: bool = False
    turn: Turn | None = None
    logged_tokens: int | None = None
    num_ending_in_answer: int = 0


@final
class LineReader:
    """Reads the lines of one trace, which have one format and one block size.

    Attributes:
        has_found: Whether a request was found.
    """

    def __init__(self, formats: tuple[LineFormat, ...]) -> None:
        self._formats = formats
        self._chosen: LineFormat | None = None
        self._key_tokens = 0

    @property
    def has_found(self) -> bool:
        """Whether any line so far was a request."""
        return self._chosen is not None

    def read(self, entry: Entry) -> Line:
        """Return what a line holds. O(size of the line).

        Raises:
            InvalidRequestError: it is malformed, or of another format than those before it.
        """
        line = open_line(_as_record(entry.parsed()))
        response = response_of(line.layers)
        output_tokens = logged_output_tokens(response)
        refused = refusal_of(line.wrapping, has_prompt=line.has_prompt, output_tokens=output_tokens)
        if refused is not None:
            return Line(refused=refused)
        if (endpoint := endpoint_without_prompt(line.wrapping)) is not None:
            return Line(other_endpoint=endpoint)
        require_body(line)
        chosen = self._format_of(line)
        sharing = sharing_of(line.layers, response)
        labels = labels_of(
            merged(line.layers),
            tenant=sharing.tenant,
            number=entry.number,
            milliseconds=chosen.counts_milliseconds(line),
        )
        if labels["output_tokens"] is None:
            labels["output_tokens"] = output_tokens
        parsed = _parse(chosen, line, labels, entry)
        key_tokens = parsed.requests[0].key_tokens
        if self._chosen is not None and key_tokens != self._key_tokens:
            raise InvalidRequestError(
                f"blocks of {key_tokens} tokens, after lines with blocks of {self._key_tokens}; a trace has "
                "one block size: keep different ones in different files"
            )
        self._chosen, self._key_tokens = chosen, key_tokens
        return Line(
            requests=parsed.requests,
            model=sharing.model,
            salt=sharing.salt,
            num_ending_in_answer=parsed.num_ending_in_answer,
            media=parsed.media,
            is_conversation=parsed.is_conversation,
            turn=parsed.turn,
            logged_tokens=None if parsed.is_conversation else logged_prompt_tokens(line.wrapping, response),
        )

    def _format_of(self, line: OpenedLine) -> LineFormat:
        if self._chosen is None:
            return choose_format(line, self._formats)
        if not self._chosen.recognises(line):
            raise InvalidRequestError(
                f"the trace began with another format, in which a line has {self._chosen.fields}; keep "
                "different logs in different files"
            )
        return self._chosen


def _as_record(value: Any) -> Mapping[str, Any]:
    """Return a value as an object with fields; without any where it is no request."""
    if isinstance(value, dict):
        return value
    if is_conversation(value):
        return {"messages" if "role" in value[0] else "conversations": value}
    return {"tokens": value} if isinstance(value, list) else {}


def _parse(chosen: LineFormat, line: OpenedLine, labels: Labels, entry: Entry) -> ParsedLine:
    try:
        return chosen.parse(line, labels, place=entry.place)
    except FractionalIdError:
        # Integers beyond 64 bits come out of the fast parser rounded, and different ids as the same one.
        return chosen.parse(open_line(_as_record(entry.parsed_exactly())), labels, place=entry.place)
