"""Structured logs: a line a request, and all others in the same form.

No line has a prompt, an answer, a key or a salt in it. What an unexpected error says may quote what a client
sent, so lines have where it happened, and what it says only at the level of debugging.
"""

import logging
import traceback
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO, TypeAlias

import structlog

from milepost.server.sight.record import Record

__all__ = ["LogFormat", "LogLevel", "configure_logs", "log_record"]

_NAME = "milepost"
_Event = MutableMapping[str, Any]


# How lines look, and which are written: these and graver ones.
LogFormat: TypeAlias = Literal["console", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

_log = structlog.wrap_logger(
    logging.getLogger(f"{_NAME}.requests"),
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
    # A logger that was made before its level was set goes by the level.
    cache_logger_on_first_use=False,
)


def configure_logs(form: LogFormat, level: LogLevel, *, stream: TextIO) -> logging.Handler:
    """Have all log lines of this process written to ``stream``; those of other packages, warnings and graver
    ones alone. Return what writes them.
    """
    is_json = form == "json"
    rendered: Any = (
        structlog.processors.JSONRenderer()
        if is_json
        else structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            _with_what_errors_say if level == "debug" else _without_what_errors_say,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            rendered,
        ]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root, own = logging.getLogger(), logging.getLogger(_NAME)
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    own.setLevel(level.upper())
    return handler


def log_record(record: Record) -> None:
    """Write the line of a request. Those that only look, and find what they look for, are for debugging."""
    fields = {name: value for name, value in record.as_json().items() if name not in ("at", "answers")}
    if not record.is_generation:
        fields = {name: fields[name] for name in ("request_id", "method", "path", "status", "total_seconds")}
    if record.status >= 500:
        level = logging.ERROR
    elif record.is_generation or record.status >= 400:
        level = logging.INFO
    else:
        level = logging.DEBUG
    _log.log(level, "request", **fields)


def _with_what_errors_say(logger: Any, name: str, event: _Event) -> _Event:
    return _with_traceback(event, says=True)


def _without_what_errors_say(logger: Any, name: str, event: _Event) -> _Event:
    return _with_traceback(event, says=False)


def _with_traceback(event: _Event, *, says: bool) -> _Event:
    """Put the error of a line into words."""
    info = event.pop("exc_info", None)
    if isinstance(info, tuple) and info[1] is not None:
        told = "".join(traceback.format_exception(info[1])) if says else _places(info[1])
        event["exception"] = told.rstrip()
    return event


def _places(error: BaseException) -> str:
    """Return where an error came from, and those behind it, without what they say."""
    told: list[str] = []
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        told.append(f"{type(each).__qualname__} (what it says: --log-level debug)\n")
        told += traceback.format_tb(each.__traceback__)
        each = each.__cause__ or each.__context__
    return "".join(told)
