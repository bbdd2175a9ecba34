"""Typed fields of a line: a value of the right kind, None where it is absent or null, or an error."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypedDict

from milepost.errors import InvalidRequestError

__all__ = [
    "Labels",
    "Record",
    "first_of",
    "labels_of",
    "merged",
    "numbered",
    "plain_name",
    "positions",
    "seconds",
    "text",
    "whole_number",
]

Record = Mapping[str, Any]

_ID_NAMES = ("request_id", "chat_id", "custom_id", "id", "requestId", "rid")
_SESSION_NAMES = ("session_id", "sessionId", "conversation_id", "conversationId", "thread_id", "threadId")
_OUTPUT_NAMES = ("output_length", "output_tokens")
# Of these a time is taken only where it can be read: loggers mean many things by them.
_OTHER_TIMES = (
    *("startTime", "start_time", "request_created_at", "created_at", "createdAt", "arrival_time"),
    *("@timestamp", "time", "ts"),
)
# Seconds since 1970 stay below the first for three thousand years, so above it are milliseconds, and so on.
_FINER_TICKS = ((1e11, 1e3), (1e14, 1e6), (1e17, 1e9))


class Labels(TypedDict):
    """What a request carries beside its prompt, as keywords of ``TraceRequest``."""

    request_id: str
    output_tokens: int | None
    arrival_seconds: float | None
    session: str | None
    tenant: str


def labels_of(record: Record, *, tenant: str, number: int, milliseconds: bool = False) -> Labels:
    """Return the labels of a line, its layers merged.

    Args:
        record: All fields of the line.
        tenant: See :mod:`milepost.traces.sharing`.
        number: Its id where it has none.
        milliseconds: What ``timestamp`` is in; seconds unless so. Times since 1970 tell it by their size.

    Raises:
        InvalidRequestError: one has the wrong type or lies outside its range.
    """
    given_ids = (text(record, name) for name in _ID_NAMES)
    return Labels(
        request_id=next((given for given in given_ids if given is not None), str(number)),
        output_tokens=next(
            (count for name in _OUTPUT_NAMES if (count := whole_number(record, name)) is not None), None
        ),
        arrival_seconds=_arrival(record, milliseconds=milliseconds),
        session=next((given for name in _SESSION_NAMES if (given := text(record, name)) is not None), None),
        tenant=tenant,
    )


def numbered(labels: Labels, count: int) -> list[Labels]:
    """Return the labels of each of ``count`` requests that came as one."""
    if count == 1:
        return [labels]
    return [Labels(**{**labels, "request_id": f"{labels['request_id']}-{index}"}) for index in range(count)]


def merged(layers: Sequence[Record]) -> Record:
    """Return the fields of all layers of a line; the outermost that says something wins."""
    if len(layers) == 1:
        return layers[0]
    fields: dict[str, Any] = {}
    for layer in reversed(layers):
        fields.update((name, value) for name, value in layer.items() if value is not None)
    return fields


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """Return a name as it is compared: loggers write ``modelName``, ``model_name`` and ``Model-Name``.

    >>> plain_name("Model-Name")
    'modelname'
    """
    return "".join(letter for letter in name.lower() if letter.isalnum() or letter == "/")


def first_of(record: Record, *names: str) -> Any:
    """Return the first of the named fields that is there and not null."""
    return next((value for name in names if (value := record.get(name)) is not None), None)


def whole_number(record: Record, name: str, *, least: int = 0) -> int | None:
    """Return a field that counts something."""
    value = record.get(name)
    if value is None:
        return None
    # A bool is an int to Python, and to nobody else.
    if type(value) is not int or value < least:
        raise InvalidRequestError(f"{name}={reprlib.repr(value)}; give a whole number of at least {least}")
    return value


def seconds(record: Record, name: str, *, per_second: int = 1) -> float | None:
    """Return a time in seconds: a number of ticks, or an ISO 8601 date (UTC where it names no zone)."""
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidRequestError(
                f"{name}={reprlib.repr(value)}; give a number, or an ISO 8601 date"
            ) from None
        # The machine's own zone would make the same log another trace elsewhere.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name}={reprlib.repr(value)}; give a number, or an ISO 8601 date")
    if not math.isfinite(value) or value < 0:
        raise InvalidRequestError(f"{name}={reprlib.repr(value)}; give a finite time of at least 0")
    return value / per_second


def _arrival(record: Record, *, milliseconds: bool) -> float | None:
    arrival = seconds(record, "timestamp_s")
    if arrival is None:
        arrival = seconds(record, "timestamp", per_second=1000 if milliseconds else 1)
    if arrival is None:
        for name in _OTHER_TIMES:
            if arrival is None and name in record:
                with suppress(InvalidRequestError):
                    arrival = seconds(record, name)
    if arrival is None or milliseconds:
        return arrival
    return arrival / max((per_second for least, per_second in _FINER_TICKS if arrival > least), default=1)


def text(record: Record, name: str) -> str | None:
    """Return a label; whole numbers are labels, too."""
    value = record.get(name)
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise InvalidRequestError(f"{name}={reprlib.repr(value)}; give a string")


def positions(record: Record, name: str) -> tuple[int, ...]:
    """Return a list of token positions, empty where there is none."""
    value = record.get(name)
    if value is None:
        return ()
    if not isinstance(value, list) or any(type(position) is not int for position in value):
        raise InvalidRequestError(f"{name}={reprlib.repr(value)}; give a list of token positions")
    return tuple(value)
