"""Messages of a request, logged or served, in the one shape that templates understand: a role and a text.

Clients write content as a string or as parts. Parts of text are joined without a separator, as templates
that take parts do. What is not text (images, audio, documents, tool blocks of other dialects) becomes a
placeholder with a hash of the part: equal images match, different ones do not, and none has the length in
tokens that it has for the model. That will do for a log; an engine checks first that there are only texts.

What an answer thought comes under several names (``reasoning_content``, ``reasoning``, ``thinking``);
templates know the first.

A client's cache point (``cache_control`` of Anthropic's dialect, ``prompt_cache_breakpoint`` of OpenAI's) on
a part, or on the message, is kept as the place in its text. Where the message ends is a breakpoint anyway; a
cache point there asks as any other that what is before it is kept for some time.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import xxhash

from milepost.errors import InvalidRequestError

__all__ = ["CACHE_POINTS", "CachePoint", "Message", "check_texts_only", "read_messages"]

_TEXT_TYPES = ("text", "input_text", "output_text")
_REASONING = ("reasoning_content", "reasoning", "thinking")
# Where a cache point may be, and for how long it asks where it does not say.
CACHE_POINTS = {"cache_control": "5m", "prompt_cache_breakpoint": "30m"}
_TTL_SECONDS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "12h": 43_200.0}


@dataclass(frozen=True, slots=True)
class CachePoint:
    """Where a client asks that what comes before is kept.

    Attributes:
        offset: Characters of the message's text before it.
        ttl: For how long, as clients write it.
    """

    offset: int
    ttl: Any

    @property
    def ttl_seconds(self) -> float:
        """For how long.

        Raises:
            InvalidRequestError: it is no time that either API has.
        """
        if not isinstance(self.ttl, str) or self.ttl not in _TTL_SECONDS:
            raise InvalidRequestError(
                f"the ttl of a cache point is {reprlib.repr(self.ttl)}; give {', '.join(_TTL_SECONDS)}"
            )
        return _TTL_SECONDS[self.ttl]


@dataclass(frozen=True, slots=True)
class Message:
    """A message for a chat template, and where in its text the client asked for cache points."""

    fields: Mapping[str, Any]
    cache_points: tuple[CachePoint, ...] = ()

    @property
    def text(self) -> str:
        """The content as the template sees it."""
        content: str = self.fields["content"]
        return content

    @property
    def cache_point_offsets(self) -> tuple[int, ...]:
        """Cache points inside its text, ascending; where it ends is no matter of theirs."""
        found = {point.offset for point in self.cache_points}
        return tuple(sorted(offset for offset in found if 0 < offset < len(self.text)))

    def with_text(self, text: str) -> dict[str, Any]:
        """Return the message with another content, and without what a template writes after the content."""
        return {name: value for name, value in self.fields.items() if name != "tool_calls"} | {
            "content": text
        }


def read_messages(given: Any, *, keeps_written_arguments: bool = False) -> list[Message]:
    """Return messages as templates understand them.

    Args:
        given: A list of them, as clients write them.
        keeps_written_arguments: Leave the arguments of a call that come as a text as they are, for a template
            that shows them so: the prompt then repeats what the model wrote, whatever its blanks.

    Raises:
        InvalidRequestError: they are not a list of objects with a role and a content, at least one.
    """
    if not isinstance(given, list | tuple) or not given:
        raise InvalidRequestError(
            f"messages={reprlib.repr(given)}; give a list of messages, at least one: [{{'role': ..., "
            "'content': ...}]"
        )
    return [_read_message(message, keeps_written_arguments) for message in given]


def check_texts_only(messages: Sequence[Any]) -> None:
    """Check that a model which reads texts can be given these messages.

    Raises:
        InvalidRequestError: one has no role, no content and no tool calls either, or a part that is no text.
    """
    for number, message in enumerate(messages):
        where = f"message {number}, {reprlib.repr(message)},"
        if not isinstance(message, Mapping):
            raise InvalidRequestError(
                f"{where} is no mapping; write {{'role': ..., 'content': ...}} (of an object, its "
                "model_dump())"
            )
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise InvalidRequestError(f"{where} has no role; write {{'role': ..., 'content': ...}}")
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            raise InvalidRequestError(f"{where} has neither content nor tool_calls; write a 'content'")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if isinstance(part, Mapping) and kind not in _TEXT_TYPES:
                raise InvalidRequestError(
                    f"{where} has a part of type {kind!r}; this engine reads texts alone: leave it out, or "
                    "describe it in words"
                )


def _read_message(given: Any, keeps_written_arguments: bool) -> Message:
    if not isinstance(given, Mapping) or not isinstance(given.get("role"), str):
        raise InvalidRequestError(
            f"message {reprlib.repr(given)} has no role; write {{'role': ..., 'content': ...}}"
        )
    text, points = _read_content(given.get("content"))
    points += _cache_points_of(given, offset=len(text))
    # Clients write what a message has not as null, or as no calls; templates ask whether it is there.
    left_out = {"tool_calls", *CACHE_POINTS}
    fields = {name: value for name, value in given.items() if value is not None and name not in left_out}
    fields["content"] = text
    reasoning = next((fields[name] for name in _REASONING if isinstance(fields.get(name), str)), None)
    if reasoning is not None:
        fields["reasoning_content"] = reasoning
    if given.get("tool_calls"):
        fields["tool_calls"] = _read_tool_calls(given["tool_calls"], keeps_written_arguments)
    return Message(fields, tuple(points))


def _read_content(content: Any) -> tuple[str, list[CachePoint]]:
    if content is None:
        return "", []
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise InvalidRequestError(f"content {reprlib.repr(content)} is neither a text nor a list of parts")
    text = ""
    points: list[CachePoint] = []
    for part in content:
        text += _text_of(part)
        if isinstance(part, Mapping):
            points += _cache_points_of(part, offset=len(text))
    return text, points


def _cache_points_of(given: Mapping[str, Any], *, offset: int) -> list[CachePoint]:
    """Return the cache points of a part, or of a message, that ends at ``offset``."""
    asked = [(given[name], ttl) for name, ttl in CACHE_POINTS.items() if given.get(name)]
    return [
        CachePoint(offset, (each.get("ttl") if isinstance(each, Mapping) else None) or ttl)
        for each, ttl in asked
    ]


def _text_of(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise InvalidRequestError(f"content part {reprlib.repr(part)} is neither a text nor an object")
    if part.get("type") in _TEXT_TYPES:
        text = part.get("text")
        if not isinstance(text, str):
            raise InvalidRequestError(f"content part {reprlib.repr(part)} has no text; write {{'text': ...}}")
        return text
    # A cache point may move from turn to turn; the part stays the same.
    kept = {name: value for name, value in part.items() if name not in CACHE_POINTS}
    try:
        written = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise InvalidRequestError(
            f"content part {reprlib.repr(part)} is not JSON: {error}; write it as an API takes it"
        ) from error
    digest = xxhash.xxh3_128_hexdigest(written)
    return f"[{part.get('type', 'part')} {digest}]"


def _read_tool_calls(calls: Any, keeps_written_arguments: bool) -> list[Any]:
    """Most templates go through the arguments; the wire has them as JSON in a string."""
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise InvalidRequestError(
            f"tool_calls {reprlib.repr(calls)} are no list; write [{{'function': ...}}]"
        )
    return list(calls) if keeps_written_arguments else [_read_tool_call(call) for call in calls]


def _read_tool_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = orjson.loads(function["arguments"])
    except orjson.JSONDecodeError:
        # A model may have written what is no JSON: the template shows it as it is.
        return call
    return {**call, "function": {**function, "arguments": arguments}}
