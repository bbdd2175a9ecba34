"""A request of Anthropic's API as the model's template takes it: messages with texts, reasoning and calls.

Two things differ beside the names. The results of tools are parts of a user's message there, and messages of
their own for templates. And a client may put what changes from request to request at the very beginning of
its system prompt, where no prefix is left to reuse: a line that one agent writes for the service's billing is
no part of the prompt, there or here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from milepost.server.dialects.cache_points import require_few
from milepost.server.dialects.messages.blocks import (
    CacheControl,
    Message,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)
from milepost.server.dialects.messages.body import PromptFields
from milepost.server.faults import refused
from milepost.server.speech.sealed import returned_reasoning, unseal

__all__ = ["messages_of", "tools_of"]

_NO_PROMPT = "x-anthropic-billing-header:"

Made = dict[str, Any]


def messages_of(body: PromptFields) -> list[Made]:
    """Return the messages for the template.

    Raises:
        RefusedError: there are more than four cache points, or a block is where it cannot be.
        InvalidRequestError: a thought is not what was given out.
    """
    require_few([place for place, _ in body.cache_controls()])
    found = list(_system(body))
    names = {
        block.id: block.name
        for message in body.messages
        if isinstance(message.content, list)
        for block in message.content
        if isinstance(block, ToolUseBlock)
    }
    for message in body.messages:
        if isinstance(message.content, str):
            found.append({"role": message.role, "content": message.content})
        elif message.role == "assistant":
            found.append(_answer(message))
        else:
            found += _questions(message, names)
    if body.cache_control is not None:
        found[-1]["cache_control"] = _control(body.cache_control)
    return found


def tools_of(tools: Sequence[Tool]) -> list[Made]:
    """Return tools as templates know them: in OpenAI's form."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": tool.input_schema
                if tool.input_examples is None
                else {**tool.input_schema, "examples": tool.input_examples},
            },
        }
        for tool in tools
    ]


def _system(body: PromptFields) -> Iterator[Made]:
    given = body.system
    parts = [TextBlock(type="text", text=given)] if isinstance(given, str) else given or []
    kept = [_part(block) | {"text": text} for block in parts if (text := _without_billing(block.text))]
    # The end of the tools is in the system prompt, or before it: kept with it.
    control = next((tool.cache_control for tool in reversed(body.used_tools) if tool.cache_control), None)
    if kept and control is not None:
        kept[-1].setdefault("cache_control", _control(control))
    if kept:
        yield {"role": "system", "content": kept}


def _without_billing(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(_NO_PROMPT) else text


def _questions(message: Message, names: Mapping[str, str]) -> Iterator[Made]:
    """Yield what a user's message is: results of tools, and what the user says."""
    parts: list[Made] = []
    for block in message.content:
        if isinstance(block, TextBlock):
            parts.append(_part(block))
            continue
        if not isinstance(block, ToolResultBlock):
            assert not isinstance(block, str)
            raise refused(
                f"a {message.role}'s message has a block of type {block.type!r}, which answers have"
            )
        if parts:
            yield {"role": message.role, "content": parts}
            parts = []
        yield _result(block, names)
    if parts or not message.content:
        yield {"role": message.role, "content": parts}


def _result(block: ToolResultBlock, names: Mapping[str, str]) -> Made:
    content = [{"type": "text", "text": block.content or ""}]
    if isinstance(block.content, list):
        content = [_part(part) for part in block.content]
    made: Made = {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    if (name := names.get(block.tool_use_id)) is not None:
        made["name"] = name
    if block.cache_control is not None:
        made["cache_control"] = _control(block.cache_control)
    return made


def _answer(message: Message) -> Made:
    parts: list[Made] = []
    thoughts: list[str] = []
    calls: list[Made] = []
    made: Made = {"role": "assistant", "content": parts}
    for block in message.content:
        match block:
            case TextBlock():
                parts.append(_part(block))
            case ThinkingBlock():
                thoughts.append(returned_reasoning(block.thinking, block.signature))
            case RedactedThinkingBlock():
                thoughts.append(unseal(block.data) or "")
            case ToolUseBlock():
                function = {"name": block.name, "arguments": block.input}
                calls.append({"type": "function", "id": block.id, "function": function})
                if block.cache_control is not None:
                    made["cache_control"] = _control(block.cache_control)
            case _:
                raise refused("an answer has a block of type 'tool_result', which users' messages have")
    if any(thoughts):
        made["reasoning_content"] = "".join(thoughts)
    if calls:
        made["tool_calls"] = calls
    return made


def _part(block: TextBlock) -> Made:
    part: Made = {"type": "text", "text": block.text}
    if block.cache_control is not None:
        part["cache_control"] = _control(block.cache_control)
    return part


def _control(control: CacheControl) -> Made:
    return control.model_dump(exclude_unset=True)
