"""Typed fields of a line: a value of the right kind, None where it is absent or null, or an error."""

import math
import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict

from milepost.errors import InvalidRequestError

__all__ = ["Labels", "Record", "first_of", "labels_of", "positions", "seconds", "text", "whole_number"]

Record = Mapping[str, Any]


class Labels(TypedDict):
    """What a request carries beside its prompt, as keywords of ``TraceRequest``."""

    request_id: str
    output_tokens: int | None
    arrival_seconds: float | None
    session: str | None
    tenant: str


def labels_of(record: Record, *, line_number: int, milliseconds: bool = False) -> Labels:
    """Return the labels of a line; ``timestamp`` is in seconds unless it is said to be in milliseconds.

    Raises:
        InvalidRequestError: one has the wrong type or lies outside its range.
    """
    given_ids = (text(record, name) for name in ("request_id", "chat_id", "custom_id", "id"))
    arrival = seconds(record, "timestamp_s")
    if arrival is None:
        arrival = seconds(record, "timestamp", per_second=1000 if milliseconds else 1)
    output_tokens = whole_number(record, "output_length")
    return Labels(
        request_id=next((given for given in given_ids if given is not None), str(line_number)),
        output_tokens=whole_number(record, "output_tokens") if output_tokens is None else output_tokens,
        arrival_seconds=arrival,
        session=text(record, "session_id"),
        tenant=text(record, "cache_salt") or "",
    )


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
