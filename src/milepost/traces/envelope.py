"""From a line to the request body in it, and what gateways and tracers wrote around that.

A body lies in the open, under ``request`` or ``body``, or several such steps down (``proxy_server_request``
and its ``body``; ``kwargs``; the ``input`` of an observation), as an object or as a string of JSON. The way
to it is kept: model, salt, times and outcome may be written on any step. A step that has a prompt, but an
empty one, is passed over where a deeper one has more, as when a gateway keeps prompts elsewhere.
"""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from milepost.errors import InvalidRequestError
from milepost.traces.dialects.spans import body_of_span
from milepost.traces.fields import Record, plain_name

__all__ = ["HASH_NAMES", "TEXT_NAMES", "TOKEN_NAMES", "OpenedLine", "open_line", "require_body"]

HASH_NAMES = ("hash_ids", "block_hashes")
TOKEN_NAMES = ("prompt_token_ids", "input_ids", "token_ids", "input_token_ids", "tokens")
# A prompt as text, in the order in which they are looked for.
TEXT_NAMES = (
    *("messages", "prompt", "text", "input", "inputs", "text_input", "contents"),
    *("conversations", "conversation"),
)
_ALL_NAMES = (*HASH_NAMES, *TOKEN_NAMES, *TEXT_NAMES)
# What a step down is called. Of the others, only "request" and "body" must hold a body if they are there.
_REQUIRED_STEPS = ("request", "body")
_STEPS = (
    *("request", "body", "request_body", "requestBody", "proxy_server_request", "input", "inputs", "prompt"),
    *("kwargs", "params", "payload", "data", "json", "attributes", "arguments", "args", "req", "obj"),
    *("additional_args", "complete_input_dict", "event", "http", "log", "message", "msg", "record"),
)
# Others are steps by what they are called: "llm_request", "payloadJson".
_WORDS_OF_STEPS = ("request", "body", "payload")
_WORDS_OF_ANSWERS = ("response", "output", "result")
_TEXT_STEPS = ("input", "inputs", "prompt")
# Where tracers keep what belongs to the body beside it.
_PARAMETER_NAMES = (
    "model_parameters",
    "modelParameters",
    "optional_params",
    "invocation_params",
    "extra_body",
)
_PARAMETERS_OF_PROMPTS = (
    *("tools", "functions", "chat_template_kwargs", "system", "instructions"),
    *("cache_salt", "extra_key", "continue_final_message"),
)
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class OpenedLine:
    """Attributes:
    layers: The objects on the way to the body, outermost first; the last is the body itself.
    has_prompt: Whether the body has a prompt that is not empty.
    """

    layers: tuple[Record, ...]
    has_prompt: bool

    @property
    def body(self) -> Record:
        """What was asked."""
        return self.layers[-1]

    @property
    def wrapping(self) -> tuple[Record, ...]:
        """What is written around the body: the whole line where there is nothing else."""
        return self.layers[:-1] or self.layers


def open_line(record: Record) -> OpenedLine:
    """Return the body of a line, the line itself where there is none. O(size of the line)."""
    best = _find(record, depth=0)
    if best is None:
        return OpenedLine((record,), has_prompt=False)
    layers, body = best[:-1], best[-1]
    return OpenedLine((*layers, _with_parameters(best)), has_prompt=_has_prompt(body))


def _find(layer: Record, *, depth: int) -> tuple[Record, ...] | None:
    """Return the way to the first prompt that is not empty, else to the first that is there at all."""
    if _has_prompt(layer):
        return (layer,)
    found: tuple[Record, ...] | None = (layer,) if any(name in layer for name in _ALL_NAMES) else None
    if found is None and any(str(name).startswith(("gen_ai.", "llm.")) for name in layer):
        span = body_of_span(layer)
        if span is not None:
            return (layer, span)
    if depth == _DEEPEST:
        return found
    for inner in _inner(layer):
        deeper = _find(inner, depth=depth + 1)
        if deeper is not None and (found is None or _has_prompt(deeper[-1])):
            found = (layer, *deeper)
            if _has_prompt(deeper[-1]):
                break
    return found


def _inner(layer: Record) -> Iterator[Record]:
    for name in _steps(tuple(layer)):
        value = layer[name]
        if isinstance(value, str) and name not in _TEXT_STEPS:
            value = _json_object(value)
        elif isinstance(value, str):
            # A prompt may be JSON itself; a body that was logged as a string says so by its messages.
            inside = _json_object(value)
            value = inside if inside is not None and "messages" in inside else None
        if isinstance(value, dict):
            yield value


@lru_cache(maxsize=1024)
def _steps(fields: tuple[str, ...]) -> tuple[str, ...]:
    """Return which fields may hold a body, the usual ones first; the lines of a log have the same fields."""
    others = (
        field
        for field in fields
        if field not in _STEPS
        and any(word in plain_name(field) for word in _WORDS_OF_STEPS)
        and not any(word in plain_name(field) for word in _WORDS_OF_ANSWERS)
    )
    return (*(name for name in _STEPS if name in fields), *others)


def _has_prompt(layer: Record) -> bool:
    return any(name in layer and _is_prompt(name, layer[name]) for name in _ALL_NAMES)


def _is_prompt(name: str, value: Any) -> bool:
    if name in HASH_NAMES or name in TOKEN_NAMES:
        return isinstance(value, list) and bool(value)
    if name == "conversation":
        # OpenAI's Responses have the id of a conversation under this name.
        return isinstance(value, list) and bool(value)
    if isinstance(value, str):
        if name in _TEXT_STEPS and "messages" in (_json_object(value) or ()):
            return False
        return value.strip() not in ("", "{}", "[]", "null")
    return isinstance(value, list) and bool(value)


def _json_object(text: str) -> Record | None:
    if text.lstrip()[:1] != "{":
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _with_parameters(layers: tuple[Record, ...]) -> Record:
    """Return the body with those of its fields that were written beside it."""
    body = layers[-1]
    if all(layer.keys().isdisjoint(_PARAMETER_NAMES) for layer in layers):
        return body
    missing = {
        field: parameters[field]
        for layer in layers
        for name in _PARAMETER_NAMES
        if isinstance(parameters := layer.get(name), dict)
        for field in _PARAMETERS_OF_PROMPTS
        if body.get(field) is None and parameters.get(field) is not None
    }
    return {**body, **missing} if missing else body


def require_body(line: OpenedLine) -> None:
    """Raise ``InvalidRequestError`` where ``request`` or ``body`` is there and no prompt is anywhere."""
    record = line.layers[0]
    if len(line.layers) > 1 or any(name in record for name in _ALL_NAMES):
        return
    for name in _REQUIRED_STEPS:
        value = record.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise InvalidRequestError(f"the request body is not JSON: {error}") from error
        raise InvalidRequestError(
            f"the request body is {reprlib.repr(value)}; it needs 'messages', 'prompt', 'input' or 'text'"
        )
