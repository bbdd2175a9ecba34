"""Google's ``contents`` with ``parts``, as chat messages."""

import reprlib
from typing import Any

from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record

__all__ = ["messages_of_contents", "tools_of_declarations"]


def messages_of_contents(body: Record) -> list[Any]:
    """Return the chat messages of a body with ``contents``.

    Raises:
        InvalidRequestError: an entry has no parts, or the rest of the prompt is cached on the server.
    """
    if cached := body.get("cachedContent", body.get("cached_content")):
        raise InvalidRequestError(
            f"cachedContent={reprlib.repr(cached)}: the beginning of this prompt is on the server and not in "
            "the log; log requests that send all of their contents"
        )
    messages: list[Any] = []
    system = body.get("systemInstruction", body.get("system_instruction"))
    if system:
        messages += _messages(
            {"role": "system", **system}
            if isinstance(system, dict)
            else {"role": "system", "parts": [{"text": system}]}
        )
    contents = body["contents"]
    if not isinstance(contents, str | list):
        raise InvalidRequestError(
            f"contents={reprlib.repr(contents)}; give a text, or a list of {{'parts': ...}}"
        )
    for entry in [{"parts": [{"text": contents}]}] if isinstance(contents, str) else contents:
        messages += _messages(entry)
    return messages


def tools_of_declarations(tools: Any) -> Any:
    """Return Google's function declarations as a list of tools; other tools unchanged."""
    if not isinstance(tools, list):
        return tools
    return [described for tool in tools for described in _declarations(tool)]


def _declarations(tool: Any) -> list[Any]:
    declared = (
        tool.get("functionDeclarations", tool.get("function_declarations"))
        if isinstance(tool, dict)
        else None
    )
    return declared if isinstance(declared, list) else [tool]


def _messages(entry: Any) -> list[Any]:
    parts = entry.get("parts") if isinstance(entry, dict) else None
    if isinstance(parts, dict):
        parts = [parts]
    if not isinstance(parts, list):
        raise InvalidRequestError(
            f"contents entry {reprlib.repr(entry)} has no parts; write {{'role': ..., 'parts': [{{'text': "
            "...}}]}}"
        )
    role = {"model": "assistant", None: "user"}.get(entry.get("role"), entry.get("role"))
    results, kept, calls = [], [], []
    for part in parts:
        call = part.get("functionCall") if isinstance(part, dict) else None
        result = part.get("functionResponse") if isinstance(part, dict) else None
        if isinstance(call, dict):
            function = {"name": call.get("name"), "arguments": call.get("args", {})}
            calls.append({"type": "function", "function": function})
        elif isinstance(result, dict):
            content = {"type": "text", "text": str(result.get("response"))}
            results.append({"role": "tool", "name": result.get("name"), "content": [content]})
        elif isinstance(part, dict) and "text" not in part and "type" not in part:
            kept.append({"type": next(iter(part), "part"), **part})
        else:
            kept.append(part)
    said = (
        [{"role": role, "content": kept, **({"tool_calls": calls} if calls else {})}] if kept or calls else []
    )
    return results + said
