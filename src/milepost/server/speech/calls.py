"""How models write calls of tools: a few ways, and by which words in its chat template each is known.

Each way is a field of transformers' response templates. A template of our own is less forgiving than the ones
there in one thing: a value in XML is taken as it is, but for the one line end on each side that templates
write, since a tool may be one that writes a file.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import regex  # type: ignore[import-untyped]

from milepost.server.speech.pieces import ToolCall

__all__ = ["CallStyle", "call_style_of", "read_calls"]

# A list of calls as Python has them.
_PYTHON_CALLS = {
    "content": "python-call-list",
    "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
    "transform_each": True,
}
_FUNCTION = {"type": "function", "function": "{content}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStyle:
    """One way to write calls.

    Attributes:
        marks: Words that a chat template has whose model writes so ...
        not_marks: ... and words that it does not have.
        opening: A pattern of what begins a call, or several.
        closing: A pattern of what ends it.
        end_of_all: What comes after the last call and means nothing more.
        rest: The other keys of the response template's field.
    """

    marks: tuple[str, ...]
    not_marks: tuple[str, ...] = ()
    opening: str
    closing: str
    end_of_all: str | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)


_STYLES = (
    # Kimi K2 and Kimi-Linear; a call's id is the model's.
    CallStyle(
        marks=("<|tool_call_argument_begin|>",),
        opening=r"(?:<\|tool_calls_section_begin\|>\s*)?<\|tool_call_begin\|>\s*"
        r"(?P<id>(?:functions\.)?(?P<name>[^\s<:]+)(?::\d+)?)\s*<\|tool_call_argument_begin\|>",
        closing=r"<\|tool_call_end\|>",
        end_of_all="<|tool_calls_section_end|>",
        rest={
            "content": "json",
            "transform": {
                "type": "function",
                "id": "{id}",
                "function": {"name": "{name}", "arguments": "{content}"},
            },
        },
    ),
    # LFM2 and LFM2.5: a list of calls as Python has them.
    CallStyle(
        marks=("<|tool_call_start|>",),
        opening=r"<\|tool_call_start\|>",
        closing=r"<\|tool_call_end\|>",
        rest=_PYTHON_CALLS,
    ),
    CallStyle(
        marks=("<|tool_list_start|>",),
        opening=r"<\|tool_call_start\|>",
        closing=r"<\|tool_call_end\|>",
        rest=_PYTHON_CALLS,
    ),
    # Qwen3.5, Qwen3-Coder, Nemotron 3.
    CallStyle(
        marks=("<tool_call>", "<function=", "<parameter="),
        opening=r"<tool_call>\s*<function=(?P<name>[^>\n]+)>",
        closing=r"</function>\s*</tool_call>",
        rest={
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>"},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
    ),
    # Nemotron-H and Nemotron Nano 2: a list of calls as JSON.
    CallStyle(
        marks=("<TOOLCALL>",),
        opening=r"<TOOLCALL>",
        closing=r"</TOOLCALL>",
        rest={
            "content": "json",
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}},
            "transform_each": True,
        },
    ),
    # Qwen2.5, Qwen3, Granite 4, Falcon-H1: as JSON. GLM has these tags and other words in them.
    CallStyle(
        marks=("<tool_call>", "arguments"),
        not_marks=("<arg_key>", "<function="),
        opening=r"<tool_call>",
        closing=r"</tool_call>",
        rest={"content": "json", "transform": _FUNCTION},
    ),
)


def call_style_of(chat_template: str) -> CallStyle | None:
    """Return the way in which a model with this chat template writes calls; None where it is not known."""
    for style in _STYLES:
        if all(mark in chat_template for mark in style.marks) and not any(
            mark in chat_template for mark in style.not_marks
        ):
            return style
    return None


def read_calls(
    written: str, content: str, *, field: Mapping[str, Any], parse: Callable[[str], Mapping[str, Any]]
) -> list[ToolCall] | None:
    """Return the calls in a piece of an answer; None where it is not wholly calls.

    Args:
        written: The piece, marks and all.
        content: What is between the marks.
        field: Of the response template, for calls.
        parse: Applies that template to a text.
    """
    try:
        calls = [_call_of(value, content) for value in _flat(parse(written).get("tool_calls"))]
    # A model writes what it likes: the parsers raise ValueError, the template's transforms the others.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if field.get("content") == "xml-inline" and not _is_covered(content, calls, field):
        return None
    return calls or None


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [] if values is None else [values]
    return [each for value in values for each in (value if isinstance(value, list) else [value])]


def _call_of(value: Any, content: str) -> ToolCall:
    function = value.get("function", value)
    name, arguments = function["name"], function.get("arguments", {})
    if function.keys() - {"name", "arguments"}:
        raise ValueError("more than a call")
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(name, str) or not name.strip() or not isinstance(arguments, dict):
        raise ValueError("no call")
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    text.encode()  # half of a surrogate pair is no text
    call_id = value.get("id")
    written = _as_written(content, arguments)
    return ToolCall(name.strip(), written or text, call_id if isinstance(call_id, str) else None)


def _as_written(content: str, arguments: Any) -> str | None:
    """Return the text of ``arguments`` where it is a part of ``content`` that is JSON, blanks and all."""
    decoder = json.JSONDecoder()
    starts = [match.end() for match in regex.finditer(r'(?:^|"arguments"\s*:)\s*(?=\{)', content)]
    for start in starts:
        try:
            value, end = decoder.raw_decode(content, start)
        except (ValueError, RecursionError):
            continue
        if value == arguments and repr(value) == repr(arguments):
            return content[start:end]
    return None


def _is_covered(content: str, calls: list[ToolCall], field: Mapping[str, Any]) -> bool:
    """Return whether nothing but parameters is in a call, each of another name."""
    pattern = regex.compile(field["content_args"]["tag_pattern"], regex.DOTALL)
    rest, count = pattern.subn("", content)
    rest = regex.sub(r"</?[\w-]+>", "", rest)
    return not rest.strip() and all(len(json.loads(call.arguments)) == count for call in calls)
