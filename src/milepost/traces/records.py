"""From a stream of bytes to its values of JSON, one at a time, with where each stands.

A log is JSON lines, or a JSON text sequence (RFC 7464), where each value has a record separator before it,
which no JSON holds. What else can only mean one thing is read as well: an array of requests, on one line or
on many; objects that are written over several lines; an object with one list of requests in it. These are
held in memory as a whole, lines one by one.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, cast

import orjson

from milepost.errors import InvalidRequestError, TraceFormatError
from milepost.traces.compression import shown_name
from milepost.traces.envelope import HASH_NAMES, TEXT_NAMES, TOKEN_NAMES
from milepost.traces.file_kinds import SNIFFED_BYTES, refuse_other_files, what_text_is
from milepost.traces.unusable import UnusableLogError

__all__ = ["Entry", "is_conversation", "read_entries"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_RECORD_SEPARATOR = b"\x1e"
_BETWEEN_VALUES = b" \t\n\r\x0b\x0c" + _RECORD_SEPARATOR
# Of a document that is not JSON lines; its values take several times as much memory.
_MOST_DOCUMENT_BYTES = 1 << 30
_LIST_NAMES = (
    "data",
    "requests",
    "records",
    "logs",
    "items",
    "observations",
    "entries",
    "rows",
    "traces",
    "results",
)
_BLANKS = re.compile(r"\s*")
_PROMPT_NAMES = (*HASH_NAMES, *TOKEN_NAMES, *TEXT_NAMES, "request", "body")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a log.

    Attributes:
        place: Where it stands, for messages and nowhere twice.
        number: Of its line, or of its place in a list.
        content: Its text, where it is a line.
        value: It, where it was parsed already.
        exact: Parses it again with integers of any length.
        is_in_document: Whether it was read from a document that is held as a whole.
    """

    place: str
    number: int
    content: bytes
    value: Any = None
    exact: Callable[[], Any] | None = None
    is_in_document: bool = False

    def parsed(self) -> Any:
        """Return the value.

        Raises:
            InvalidRequestError: the line is not JSON.
        """
        if self.exact is not None:
            return self.value
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError as error:
            if (told := what_text_is(self.content)) is not None:
                raise UnusableLogError(f"not JSON: {told}") from error
            raise InvalidRequestError(f"not JSON: {error}") from error

    def parsed_exactly(self) -> Any:
        """Return the value with integers of any length: a fast parser rounds those beyond 64 bits."""
        return json.loads(self.content) if self.exact is None else self.exact()


def read_entries(stream: IO[bytes], *, path: str) -> Iterator[Entry]:
    """Yield the values of a log in their order.

    Raises:
        TraceFormatError: it is a file of another kind, or one JSON document that is too large to be held.
    """
    # Every stream that decompresses can peek, and so can a plain file.
    refuse_other_files(cast(Any, stream).peek(SNIFFED_BYTES)[:SNIFFED_BYTES], path)
    is_first = True
    for number, line in enumerate(stream, start=1):
        content = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).strip(_BETWEEN_VALUES)
        if not content:
            continue
        if is_first and _goes_on(content):
            rest = stream.read(_MOST_DOCUMENT_BYTES + 1)
            document = (content + b"\n" + rest).replace(_RECORD_SEPARATOR, b"\n")
            if len(rest) > _MOST_DOCUMENT_BYTES:
                raise TraceFormatError(
                    f"{shown_name(path)} is one JSON document of more than {_MOST_DOCUMENT_BYTES >> 30} GiB, "
                    "written over many lines; write a request a line: jq -c '.[]'"
                )
            values = _values_of(document)
            if values is None:
                yield Entry(f"line {number}", number, content)
                yield from _lines(io.BytesIO(rest), start=number + 1)
                return
            for index, value in enumerate(values):
                exact = partial(_element, document, index)
                yield Entry(f"element {index + 1}", index + 1, b"", value, exact, is_in_document=True)
            return
        is_first = False
        yield from _of_line(content, number)


def _lines(stream: IO[bytes], *, start: int) -> Iterator[Entry]:
    for number, line in enumerate(stream, start=start):
        if content := line.strip(_BETWEEN_VALUES):
            yield from _of_line(content, number)


def _of_line(content: bytes, number: int) -> Iterator[Entry]:
    """A line is a value, or several with record separators between them."""
    if _RECORD_SEPARATOR not in content:
        yield from _of_value(content, f"line {number}", number)
        return
    records = filter(None, (each.strip() for each in content.split(_RECORD_SEPARATOR)))
    for index, each in enumerate(records, start=1):
        yield from _of_value(each, f"line {number}, record {index}", number)


def _of_value(content: bytes, where: str, number: int) -> Iterator[Entry]:
    """A value is a request, or an array of them."""
    if content[:1] in (b"[", b"{"):
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError:
            value = None
        listed = _listed(value)
        if listed is not None:
            for index, each in enumerate(listed):
                place = f"{where}, element {index + 1}"
                exact = partial(_element, content, index)
                yield Entry(place, index + 1, content, each, exact, is_in_document=True)
            return
        if value is not None:
            yield Entry(where, number, content, value, partial(json.loads, content))
            return
    yield Entry(where, number, content)


def _goes_on(first_line: bytes) -> bool:
    """Return whether a line is the beginning of a value that ends on another."""
    if first_line[:1] not in (b"[", b"{"):
        return False
    try:
        orjson.loads(first_line)
    except orjson.JSONDecodeError:
        return first_line[:1] == b"[" or first_line[-1:] in (b"{", b"[", b",", b":")
    return False


def _values_of(document: bytes) -> list[Any] | None:
    """Return the values of a document over many lines, None where it is none."""
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError:
        return _exact_values(document)
    listed = _listed(value)
    return [value] if listed is None else listed


def _exact_values(document: bytes) -> list[Any] | None:
    """Return values that follow one another, as a formatter leaves JSON lines; slower, and of any length."""
    try:
        text = document.decode()
    except UnicodeDecodeError:
        return None
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    values = []
    at = _skip_blanks(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.append(value)
        at = _skip_blanks(text, end)
    listed = _listed(values[0]) if len(values) == 1 else None
    return values if listed is None else listed


def _element(document: bytes, index: int) -> Any:
    values = _exact_values(document)
    assert values is not None  # it was parsed before
    return values[index]


def _skip_blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return at if match is None else match.end()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _listed(value: Any) -> list[Any] | None:
    """Return the requests of an array of them, or of an object that is nothing but a list of them."""
    if isinstance(value, dict):
        if any(name in value for name in _PROMPT_NAMES):
            return None
        lists = [value[name] for name in _LIST_NAMES if isinstance(value.get(name), list)]
        return (
            lists[0]
            if len(lists) == 1 and all(isinstance(each, dict) for each in lists[0]) and lists[0]
            else None
        )
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(each, list) for each in value):
        return value
    if all(isinstance(each, dict) for each in value) and not is_conversation(value):
        return value
    return None


def is_conversation(value: Any) -> bool:
    """Return whether a list is of messages, each with who speaks and what."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(each, dict)
            and any(name in each for name in ("role", "from"))
            and any(name in each for name in ("content", "value", "parts", "tool_calls"))
            for each in value
        )
    )
