"""A conversation of items as the model's template takes it: messages with texts, reasoning and calls.

An answer is several items there, in the order in which it was made, and one message for templates.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from milepost.server.dialects.cache_points import places_in, require_few
from milepost.server.dialects.responses.body import ResponsesBody
from milepost.server.dialects.responses.items import (
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputItem,
    MessageItem,
    Part,
    ReasoningItem,
    TextPart,
)
from milepost.server.speech.sealed import returned_reasoning

__all__ = ["messages_of", "tools_of"]

_INSTRUCTIONS = ("system", "developer")

Made = dict[str, Any]


def messages_of(body: ResponsesBody) -> list[Made]:
    """Return the messages for the template.

    Raises:
        RefusedError: there are more than four cache points.
        InvalidRequestError: reasoning is not what was given out.
    """
    items = [MessageItem(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    found = [] if body.instructions is None else [_message("system", body.instructions)]
    found += _merged(items)
    # Items are merged by now, so a place among messages would mislead.
    require_few(["input" for _ in places_in(found)])
    return _with_one_beginning(found)


def tools_of(tools: Sequence[FunctionTool]) -> list[Made]:
    """Return tools as templates know them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description or "",
                "parameters": tool.parameters or {"type": "object", "properties": {}},
            },
        }
        for tool in tools
    ]


def _merged(items: Sequence[InputItem]) -> Iterator[Made]:
    """Yield messages: what one answer thought, said and called is one."""
    names = {item.call_id: item.name for item in items if isinstance(item, FunctionCall)}
    answer: Made | None = None
    for item in items:
        is_answer = isinstance(item, ReasoningItem | FunctionCall) or (
            isinstance(item, MessageItem) and item.role == "assistant"
        )
        begins = isinstance(item, ReasoningItem) and answer is not None and _has_spoken(answer)
        if answer is not None and (begins or not is_answer):
            yield answer
            answer = None
        if is_answer:
            answer = _message("assistant", "") if answer is None else answer
            _add(answer, item)
        elif isinstance(item, FunctionCallOutput):
            name = item.name or names.get(item.call_id)
            made = _message("tool", item.output) | {"tool_call_id": item.call_id}
            yield made if name is None else made | {"name": name}
        else:
            assert isinstance(item, MessageItem)
            yield _message(item.role, item.content)
    if answer is not None:
        yield answer


def _has_spoken(answer: Made) -> bool:
    return bool(answer["content"] or "tool_calls" in answer)


def _add(answer: Made, item: InputItem) -> None:
    """Put an item into the message of its answer."""
    match item:
        case ReasoningItem():
            shown = "".join(part.text for part in item.content or ())
            thought = answer.get("reasoning_content", "") + returned_reasoning(shown, item.encrypted_content)
            if thought:
                answer["reasoning_content"] = thought
        case FunctionCall():
            function = {"name": item.name, "arguments": item.arguments}
            call = {"type": "function", "id": item.call_id, "function": function}
            answer["tool_calls"] = [*answer.get("tool_calls", []), call]
        case MessageItem():
            answer["content"] = [*answer["content"], *_parts(item.content)]


def _with_one_beginning(messages: list[Made]) -> list[Made]:
    """Return messages with the instructions before the first question as one: some templates know one."""
    count = next((at for at, made in enumerate(messages) if made["role"] not in _INSTRUCTIONS), len(messages))
    if count < 2:
        return messages
    parts = list(messages[0]["content"])
    for made in messages[1:count]:
        parts += [{"type": "text", "text": "\n\n"}, *made["content"]]
    return [{"role": "system", "content": parts}, *messages[count:]]


def _message(role: str, content: str | Sequence[Part]) -> Made:
    return {"role": role, "content": _parts(content)}


def _parts(content: str | Sequence[Part]) -> list[Made]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [_part(part) for part in content]


def _part(part: Part) -> Made:
    if not isinstance(part, TextPart):
        return {"type": "text", "text": part.refusal}
    made: Made = {"type": "text", "text": part.text}
    if part.prompt_cache_breakpoint is not None:
        made["prompt_cache_breakpoint"] = part.prompt_cache_breakpoint.model_dump(exclude_unset=True)
    return made
