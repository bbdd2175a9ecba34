"""Spans of OpenTelemetry's conventions for language models, and of OpenInference's, as a request body.

A span has a flat list of attributes with numbered names (``gen_ai.prompt.0.role``,
``llm.input_messages.0.message.content``), or the messages as a string of JSON (``gen_ai.input.messages``).
"""

import re
from typing import Any

import orjson

from milepost.traces.fields import Record

__all__ = ["body_of_span"]

_NUMBERED = re.compile(r"(?:gen_ai\.prompt|llm\.prompts|llm\.input_messages)\.(\d+)\.(?:message\.)?(.+)")
_NUMBERED_CALL = re.compile(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(name|arguments|id)")
_WHOLE = ("gen_ai.input.messages", "gen_ai.prompt", "gen_ai.request.messages")
_SYSTEM = "gen_ai.system_instructions"


def body_of_span(attributes: Record) -> dict[str, Any] | None:
    """Return ``{"messages": ..., "model": ...}`` of a span's attributes; None where they hold no prompt."""
    messages = _numbered(attributes)
    for name in _WHOLE:
        if not messages and isinstance(listed := _json(attributes.get(name)), list):
            messages = [_message(each) for each in listed]
    if not messages:
        return None
    system = _json(attributes.get(_SYSTEM))
    if isinstance(system, list):
        messages.insert(0, _message({"role": "system", "parts": system}))
    elif isinstance(system, str):
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages}


def _numbered(attributes: Record) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for name, value in attributes.items():
        match = _NUMBERED.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            continue
        message = found.setdefault(int(match[1]), {"content": ""})
        call = _NUMBERED_CALL.fullmatch(match[2])
        if call is None:
            message[match[2]] = value
            continue
        calls = message.setdefault("calls", {})
        calls.setdefault(int(call[1]), {})[call[2]] = value
    messages = []
    for _, message in sorted(found.items()):
        calls = message.pop("calls", {})
        if calls:
            message["tool_calls"] = [
                {"type": "function", "function": {"name": None, **each}} for _, each in sorted(calls.items())
            ]
        messages.append(message)
    return messages


def _message(given: Any) -> Any:
    """A message with parts, as one with content."""
    if not isinstance(given, dict) or "parts" not in given:
        return given
    content, calls = [], []
    for part in given["parts"]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            content.append({"type": "text", "text": part.get("content", part.get("text", ""))})
        elif kind == "tool_call":
            function = {"name": part.get("name"), "arguments": part.get("arguments", {})}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        elif kind == "tool_call_response":
            content.append({"type": "text", "text": str(part.get("result", part.get("response", "")))})
        else:
            content.append(part)
    message = {name: value for name, value in given.items() if name != "parts"} | {"content": content}
    return message | ({"tool_calls": calls} if calls else {})


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
