"""What became of a request, as far as a log says it: served, or refused and never computed.

A request that was turned away (too many, not allowed, malformed, a server that failed) put nothing into any
cache, and its retry follows in the log: replayed, it would count as reuse of a prompt that nobody computed.
A model that declines to answer, a filter on the answer and an answer cut at its length were served. So was
what a client broke off, unless the log says that no token had come by then, or holds no prompt.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import orjson

from milepost.traces.fields import Record, plain_name

__all__ = ["endpoint_without_prompt", "refusal_of", "response_of"]

_LEAST_ERROR_STATUS = 400
_STATUS_NAMES = frozenset(
    (
        *("status", "statuscode", "httpstatus", "httpstatuscode", "httpcode", "code", "outcome", "state"),
        *("responsestatus", "responsestatuscode", "responsecode", "responsehttpstatus", "upstreamstatus"),
        *("httpresponsestatuscode", "requeststatus", "result"),
    )
)
_ERROR_NAMES = frozenset(
    (
        *("error", "errors", "exception", "errormessage", "errormsg", "errorstr", "errorinformation"),
        *("errorcode", "errortype", "errorclass", "errordetails", "exceptiontype", "failure"),
        *("failurereason",),
    )
)
_FAILED_WORDS = frozenset(
    (
        *("error", "errored", "failed", "failure", "fail", "rejected", "refused", "denied", "unauthorized"),
        *("forbidden", "ratelimited", "throttled", "blocked", "exception", "statuscodeerror", "timeout"),
    )
)
_BROKEN_OFF_WORDS = frozenset(("abort", "aborted", "cancelled", "canceled"))
_NO_ERROR_WORDS = frozenset(
    (*("", "none", "null", "false", "0", "ok", "success", "noerror", "200", "nan", "n/a"),)
)
_TRUE_MEANS_FAILED = frozenset(("iserror", "haserror", "failed", "rejected", "refused", "ratelimited"))
_FALSE_MEANS_FAILED = frozenset(("success", "successful", "ok", "succeeded", "issuccess"))
_RESPONSE_NAMES = ("response", "response_body", "responseBody", "output", "result", "completion")
_CERTAIN_RESPONSE_NAMES = ("response", "response_body", "responseBody")
_API_ANSWER_NAMES = ("choices", "usage", "object", "status_code", "statusCode")
# Of a request that has nothing to generate from: the path's last parts.
_OTHER_ENDPOINTS = frozenset(
    (
        *(
            "embeddings",
            "embedding",
            "embed",
            "models",
            "moderations",
            "health",
            "healthz",
            "metrics",
            "ping",
        ),
        *("tokenize", "detokenize", "rerank", "score", "pooling", "classify", "version", "files", "batches"),
        *("transcriptions", "translations", "speech", "generations", "edits", "variations", "count_tokens"),
    )
)
_REASON_NAMES = ("finish_reason", "finishReason", "finished_reason", "stop_reason")
_FINISH_NAMES = (*_REASON_NAMES, "choices", "aborted")
_PATH_NAMES = ("url", "path", "endpoint", "uri", "route", "request_path", "api_route", "call_type")


def refusal_of(layers: Sequence[Record], *, has_prompt: bool, output_tokens: int | None) -> str | None:
    """Return why a request was never computed, in a few words; None where it was, or nothing is said.

    Args:
        layers: The line and what lies in it, outermost first, without the request's own body.
        has_prompt: Whether it holds a prompt.
        output_tokens: How many tokens were generated, where the log says it.
    """
    was_computed = has_prompt and output_tokens != 0
    for record in (*layers, *(answer for layer in layers for answer in _responses(layer))):
        for field in _telling(tuple(record)):
            reason = _reason(plain_name(field), record[field], was_computed=was_computed)
            if reason is not None:
                return reason
        for word in _finish_reasons(record):
            if word in _FAILED_WORDS or (word in _BROKEN_OFF_WORDS and not was_computed):
                return f"finish reason {word}"
    return None


def response_of(layers: Sequence[Record]) -> Record | None:
    """Return the logged answer, the innermost object of it."""
    found = None
    for layer in layers:
        for answer in _responses(layer):
            found = answer
    return found


def endpoint_without_prompt(layers: Sequence[Record]) -> str | None:
    """Return the path of a request that no model generates for, such as ``/v1/embeddings``; else None."""
    for layer in layers:
        if layer.keys().isdisjoint((*_PATH_NAMES, "method")):
            continue
        for name in _PATH_NAMES:
            path = layer.get(name)
            if isinstance(path, str):
                parts = path.partition("?")[0].rstrip("/").rsplit("/", 1)
                if (
                    parts[-1].lower().removeprefix("a") in _OTHER_ENDPOINTS
                    or parts[-1].lower() in _OTHER_ENDPOINTS
                ):
                    return path
        if str(layer.get("method", "")).upper() in ("GET", "HEAD", "OPTIONS", "DELETE"):
            return f"{layer['method']} {layer.get('url') or layer.get('path') or ''}".strip()
    return None


@lru_cache(maxsize=1024)
def _telling(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return which of these fields can say that a request failed; the lines of a log have the same fields."""
    names = _STATUS_NAMES | _ERROR_NAMES | _TRUE_MEANS_FAILED | _FALSE_MEANS_FAILED | {"level"}
    return tuple(field for field in fields if plain_name(field) in names)


def _reason(name: str, value: Any, *, was_computed: bool) -> str | None:
    if value is None:
        return None
    if name in _STATUS_NAMES:
        # Spans write {"code": ..., "message": ...}.
        if name == "status" and isinstance(value, dict):
            value = value.get("code", value.get("status_code"))
        return _status_reason(value, was_computed=was_computed)
    if name in _ERROR_NAMES and _says_error(value):
        return "error"
    if (name in _TRUE_MEANS_FAILED and value is True) or (name in _FALSE_MEANS_FAILED and value is False):
        return f"{name}={str(value).lower()}"
    if name == "level" and isinstance(value, str) and value.lower() == "error":
        return "level error"
    return None


def _status_reason(value: Any, *, was_computed: bool) -> str | None:
    number, word = value, ""
    if isinstance(value, str):
        word = value.strip()
        digits = word.split(" ", 1)[0]
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) == 3 else None
    if type(number) is int and _LEAST_ERROR_STATUS <= number < 600:
        return f"status {number}"
    plain = plain_name(word)
    if plain in _FAILED_WORDS or (plain in _BROKEN_OFF_WORDS and not was_computed):
        return f"status {word.lower()}"
    return None


def _says_error(value: Any) -> bool:
    if isinstance(value, dict):
        # A record of failures that has all its fields empty tells of a success.
        return any(_is_said(part) for name, part in value.items() if plain_name(name) != "llmprovider")
    return _is_said(value)


def _is_said(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower().replace(" ", "") not in _NO_ERROR_WORDS
    # Codes of errors are often numbers, and those of success too.
    return bool(value) and not (type(value) is int and 200 <= value < _LEAST_ERROR_STATUS)


def _finish_reasons(record: Record) -> Iterator[str]:
    if record.keys().isdisjoint(_FINISH_NAMES):
        return
    choices = record.get("choices")
    answers = (
        [record, *(choice for choice in choices if isinstance(choice, dict))]
        if isinstance(choices, list)
        else [record]
    )
    for answer in answers:
        for name in _REASON_NAMES:
            reason = answer.get(name)
            # SGLang writes {"type": "abort", "message": ...}.
            reason = reason.get("type") if isinstance(reason, dict) else reason
            if isinstance(reason, str):
                yield plain_name(reason)
        if answer.get("aborted") is True:
            yield "aborted"


def _responses(layer: Record) -> Iterator[Record]:
    if layer.keys().isdisjoint(_RESPONSE_NAMES):
        return
    for name in _RESPONSE_NAMES:
        answer = layer.get(name)
        is_certain = name in _CERTAIN_RESPONSE_NAMES and isinstance(answer, dict)
        if isinstance(answer, str) and answer.lstrip()[:1] == "{":
            try:
                answer = orjson.loads(answer)
            except orjson.JSONDecodeError:
                continue
        if isinstance(answer, dict) and (is_certain or _is_api_answer(answer)):
            yield answer
            inner = answer.get("body")
            if isinstance(inner, dict):
                yield inner


def _is_api_answer(answer: Record) -> bool:
    """Return whether an object is a server's answer, and not what a model wrote, which can be JSON, too."""
    return not answer.keys().isdisjoint(_API_ANSWER_NAMES) or isinstance(answer.get("error"), dict)
