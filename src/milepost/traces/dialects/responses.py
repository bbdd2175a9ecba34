"""OpenAI's Responses API: ``instructions`` and ``input``, a text or a list of items, as chat messages.

What the server kept of earlier turns is not in the line: ``previous_response_id``, a ``conversation`` and
references to stored items are errors, because the line then holds only what is new.
"""

import reprlib
from collections.abc import Mapping
from typing import Any

from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record

__all__ = ["messages_of_responses"]

_REMEDY = (
    "the earlier turns are on the server and not in the log, so what the prompt began with is unknown: log "
    "the rendered prompts of the server (prompt_token_ids, or block hashes), or requests that send their "
    "whole input"
)


def messages_of_responses(body: Record) -> list[Any]:
    """Return the chat messages of a body with ``input``.

    Raises:
        InvalidRequestError: the prompt is not all in the line, or an item is malformed.
    """
    for name in ("previous_response_id", "conversation"):
        if body.get(name):
            raise InvalidRequestError(f"{name}={reprlib.repr(body[name])}: {_REMEDY}")
    instructions, given = body.get("instructions"), body["input"]
    messages: list[Any] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
        return messages
    thoughts: list[str] = []
    for item in given:
        if isinstance(item, str):
            raise InvalidRequestError(
                "'input' is a list of texts, as for embeddings; a prompt to generate from is a text or a "
                "list of {'role': ..., 'content': ...}"
            )
        _add_item(item, messages, thoughts)
    return messages


def _add_item(item: Any, messages: list[Any], thoughts: list[str]) -> None:
    if not isinstance(item, dict):
        raise InvalidRequestError(f"input item {reprlib.repr(item)} is no object; write {{'role': ...}}")
    kind = item.get("type", "message")
    if kind == "item_reference":
        raise InvalidRequestError(f"input item {reprlib.repr(item)}: {_REMEDY}")
    if kind == "reasoning":
        thoughts.extend(_texts(item.get("content")) or _texts(item.get("summary")))
        return
    if kind == "message" or "role" in item:
        message = {name: value for name, value in item.items() if name not in ("type", "status", "id")}
        if message.get("role") == "developer":
            message["role"] = "system"
    elif kind in ("function_call", "custom_tool_call"):
        _add_call(item, messages, thoughts)
        return
    elif kind.endswith("_output"):
        message = {
            "role": "tool",
            "tool_call_id": item.get("call_id"),
            "content": _output(item.get("output")),
        }
    else:
        # A search, a computer's turn and the like: equal ones match, and they are counted as no text.
        message = {"role": "assistant", "content": [dict(item)]}
    if message.get("role") == "assistant" and thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
        thoughts.clear()
    messages.append(message)


def _add_call(item: Mapping[str, Any], messages: list[Any], thoughts: list[str]) -> None:
    """Calls that follow one another are one message, as they were one answer."""
    call = {
        "id": item.get("call_id"),
        "type": "function",
        "function": {"name": item.get("name"), "arguments": item.get("arguments", item.get("input"))},
    }
    if messages and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
        return
    message: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [call]}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
        thoughts.clear()
    messages.append(message)


def _output(output: Any) -> Any:
    return output if isinstance(output, str | list) else reprlib.repr(output) if output is not None else ""


def _texts(parts: Any) -> list[str]:
    if not isinstance(parts, list):
        return []
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
