"""Content blocks of Anthropic's and Bedrock's messages, and other ways to write the same message.

A block that calls a tool becomes a ``tool_calls`` entry, a tool's result a message of its own, thoughts
become ``reasoning_content``: so a template writes them where the model expects them, and their tokens count.
Images and other things that are no text stay parts of the content.
"""

import reprlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import orjson

from milepost.errors import InvalidRequestError

__all__ = ["chat_messages", "chat_tools"]

_THOUGHTS = ("thinking", "reasoning", "reasoningContent", "redacted_thinking")


def chat_messages(messages: list[Any]) -> list[Any]:
    """Return messages in OpenAI's shape; those that are in it already are passed on untouched."""
    return [plain for message in messages for plain in _plain_messages(message)]


def chat_tools(tools: Any) -> list[Any] | None:
    """Return tools as ``{"type": "function", "function": {...}}``.

    Raises:
        InvalidRequestError: they are no list.
    """
    if isinstance(tools, str):
        # Data sets and gateways keep them as JSON.
        with suppress(orjson.JSONDecodeError):
            tools = orjson.loads(tools) if tools.strip() else None
    if isinstance(tools, dict):
        tools = tools.get("tools")  # Bedrock's toolConfig
    if not tools:
        return None
    if not isinstance(tools, list):
        raise InvalidRequestError(f"tools={reprlib.repr(tools)}; give a list of tools")
    return [_chat_tool(tool) for tool in tools]


def _chat_tool(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    described = tool.get("toolSpec", tool)
    if "function" in described or "name" not in described:
        return tool
    schema = described.get("parameters", described.get("input_schema", described.get("inputSchema")))
    if isinstance(schema, dict) and set(schema) == {"json"}:
        schema = schema["json"]
    function = {"name": described["name"], "description": described.get("description"), "parameters": schema}
    return {
        "type": "function",
        "function": {name: value for name, value in function.items() if value is not None},
    }


def _plain_messages(message: Any) -> Iterator[Any]:
    if not isinstance(message, dict):
        yield message
        return
    if isinstance(message.get("images"), list):
        message = _with_images_inside(message)
    content = message.get("content")
    if not isinstance(content, list) or not any(map(_kind_of, content)):
        yield message
        return
    kept: list[Any] = []
    calls: list[Any] = []
    thoughts: list[str] = []
    for block in content:
        kind = _kind_of(block)
        if kind == "result":
            yield _tool_message(block.get("toolResult", block))
        elif kind == "call":
            calls.append(_tool_call(block.get("toolUse", block)))
        elif kind == "thought":
            thoughts.append(_thought(block))
        else:
            kept.append(_text_block(block) if kind == "text" else block)
    if kept or calls or thoughts:
        fields = {**message, "content": kept}
        if calls:
            fields["tool_calls"] = [*(message.get("tool_calls") or ()), *calls]
        if thoughts:
            fields["reasoning_content"] = "\n".join(thoughts)
        yield fields


def _with_images_inside(message: Mapping[str, Any]) -> dict[str, Any]:
    """Ollama keeps images beside the content; they stand before its text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    images = [{"type": "image", "image": image} for image in message["images"]]
    return {name: value for name, value in message.items() if name != "images"} | {
        "content": [*images, *parts]
    }


def _kind_of(block: Any) -> str | None:
    """Return which of the things a block is that OpenAI's chat shape writes otherwise; None for any other."""
    if not isinstance(block, dict):
        return None
    kind, source = block.get("type"), block.get("source")
    if kind == "tool_result" or (kind is None and "toolResult" in block):
        return "result"
    if kind == "tool_use" or (kind is None and "toolUse" in block):
        return "call"
    if kind in _THOUGHTS or (kind is None and "reasoningContent" in block):
        return "thought"
    is_text_document = kind == "document" and isinstance(source, dict) and source.get("type") == "text"
    return "text" if is_text_document or (kind is None and "text" in block) else None


def _text_block(block: Mapping[str, Any]) -> dict[str, Any]:
    source = block.get("source")
    text = source.get("data") if isinstance(source, dict) else block.get("text")
    marks = {name: block[name] for name in ("cache_control", "prompt_cache_breakpoint") if name in block}
    return {"type": "text", "text": text, **marks}


def _tool_message(result: Any) -> dict[str, Any]:
    _require_object(result, "toolResult")
    content = result.get("content")
    if isinstance(content, list):
        content = [_text_block(part) if _kind_of(part) == "text" else part for part in content]
    return {
        "role": "tool",
        "tool_call_id": result.get("tool_use_id", result.get("toolUseId")),
        "content": "" if content is None else content,
    }


def _tool_call(call: Any) -> dict[str, Any]:
    _require_object(call, "toolUse")
    return {
        "id": call.get("id", call.get("toolUseId")),
        "type": "function",
        "function": {"name": call.get("name"), "arguments": call.get("input", {})},
    }


def _require_object(value: Any, name: str) -> None:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{name}={reprlib.repr(value)} in a message's content; give an object")


def _thought(block: Mapping[str, Any]) -> str:
    said = block.get("thinking", block.get("text", block.get("reasoning", block.get("reasoningContent"))))
    if isinstance(said, dict):
        said = said.get("reasoningText", said)
        said = said.get("text") if isinstance(said, dict) else said
    return said if isinstance(said, str) else ""
