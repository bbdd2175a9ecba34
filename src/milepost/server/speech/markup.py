"""How one model's answers mark reasoning and calls of tools, found out from its chat template.

A tokenizer may come with a ``response_template`` that says it (transformers knows the form). Few do. Else
the chat template says it too: it writes past answers as the model is to write the next. So a conversation of
probes is rendered, and what stands around their reasoning and their text are the marks. Around a mark a
template writes line ends, which belong to it; what a model writes beside those belongs to the reasoning or
the text, so that the next turn's prompt repeats it. Nothing is guessed from a model's name.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.server.speech.calls import CallStyle, call_style_of

__all__ = ["EFFORTS", "Markup", "markup_of"]

_log = logging.getLogger(__name__)

_USER, _REASONING, _TEXT = "milepostxuserxmilepost", "milepostxthoughtxmilepost", "milepostxtextxmilepost"
_CALLED = ("milepostxonexmilepost", "milepostxtwoxmilepost")
# How much a model is to think, in the words of the APIs, from little to much.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
# A mark is one tag, as <think> or [THINK].
_TAG = r"<[^<>\s]+>|\[/?[A-Z_]+\]"
_OPENED = re.compile(rf"({_TAG})(\s*)$")
_CLOSED = re.compile(rf"(\s*)({_TAG})(\s*)")
# Names under which templates have a switch for reasoning.
_SWITCHES = ("enable_thinking", "thinking")


@dataclass(frozen=True, slots=True, kw_only=True)
class Markup:
    """See the module.

    Attributes:
        response_template: As transformers has them; None where nothing is marked.
        is_own: Whether it came with the tokenizer.
        header: The text before a new answer, without what may be begun of it; empty where there is none.
        thinking_switch: The template's variable that turns reasoning on and off; None where it has none.
        efforts: What the template takes as ``reasoning_effort``, from little to much; empty for nothing.
    """

    response_template: Mapping[str, Any] | None = None
    is_own: bool = False
    header: str = ""
    thinking_switch: str | None = None
    efforts: tuple[str, ...] = ()

    @property
    def reads_calls(self) -> bool:
        """Whether calls of tools can be told from text."""
        return self.response_template is not None and "tool_calls" in self.response_template["fields"]


@dataclass(frozen=True, slots=True)
class _Mark:
    """A tag with the line ends that a template writes before and after it."""

    before: str
    tag: str
    after: str

    @property
    def pattern(self) -> str:
        """What finds it, with as much of the line ends as is there."""
        return _ending(self.before) + re.escape(self.tag) + _beginning(self.after)


def markup_of(tokenizer: PromptTokenizer) -> Markup:
    """Return how answers of this tokenizer's model are marked. Renders a dozen short conversations."""
    if not tokenizer.has_chat_template:
        return Markup()
    opened = _render(tokenizer, [_user()], add_generation_prompt=True) or ""
    bare = _render(tokenizer, [_user()]) or ""
    begun = opened[len(bare) :] if opened.startswith(bare) else ""
    marks = _reasoning_marks(tokenizer)
    header = begun.partition(marks[0].tag)[0] if marks else begun
    own = _own_template(tokenizer)
    return Markup(
        response_template=own or _found_template(tokenizer, marks, header),
        is_own=own is not None,
        header=header,
        thinking_switch=next((each for each in _SWITCHES if _matters(tokenizer, each, (True, False))), None),
        efforts=_efforts(tokenizer),
    )


def _own_template(tokenizer: PromptTokenizer) -> Mapping[str, Any] | None:
    """Return the template that came with the tokenizer."""
    template = tokenizer.response_template
    if template is None:
        return None
    from transformers.utils.chat_parsing.response_templates import load_response_template

    try:
        load_response_template(template)
    except (ValueError, KeyError, TypeError) as error:
        _log.warning(
            "the response_template of %s is not one that this transformers reads (%s); its chat template "
            "says how answers are marked",
            tokenizer.name,
            error,
        )
        return None
    found: Mapping[str, Any] = template
    return found


def _found_template(
    tokenizer: PromptTokenizer, marks: tuple[_Mark, _Mark] | None, header: str
) -> Mapping[str, Any] | None:
    style = call_style_of(_source_of(tokenizer))
    if marks is None and style is None:
        return None
    fields: dict[str, Any] = {"content": {"content": "text"}}
    if marks is not None:
        fields["reasoning_content"] = {
            "open_pattern": marks[0].pattern,
            "close_pattern": marks[1].pattern,
            "content": "text",
        }
    if style is not None:
        fields["tool_calls"] = {
            "open_pattern": _ending(_blanks_before_calls(tokenizer, style)) + style.opening,
            "close_pattern": style.closing,
            "repeats": True,
            **style.rest,
        }
        if style.end_of_all is not None:
            # It ends where it begins: at the character after it.
            fields["tool_calls_end"] = {"open": style.end_of_all, "close_pattern": r"(?=[\s\S])"}
    return {
        "defaults": {"role": "assistant"},
        "start_anchor": header or _USER,
        "fields": fields,
    }


def _reasoning_marks(tokenizer: PromptTokenizer) -> tuple[_Mark, _Mark] | None:
    """Return what begins reasoning and what ends it."""
    names = ("reasoning_content", "reasoning", "thinking")
    answer = {"role": "assistant", "content": _TEXT, **dict.fromkeys(names, _REASONING)}
    rendered = _render(tokenizer, [_user(), answer]) or ""
    before, found, after = rendered.rpartition(_USER)[2].partition(_REASONING)
    opened = _OPENED.search(before)
    closed = _CLOSED.fullmatch(after.partition(_TEXT)[0]) if found and _TEXT in after else None
    if opened and closed:
        return _Mark("", opened[1], opened[2]), _Mark(closed[1], closed[2], closed[3])
    source = _source_of(tokenizer)
    if "<think>" in source and "</think>" in source:
        # It leaves the reasoning of past answers out, and knows of it.
        return _Mark("", "<think>", "\n"), _Mark("\n", "</think>", "\n\n")
    return None


def _blanks_before_calls(tokenizer: PromptTokenizer, style: CallStyle) -> str:
    """Return the blanks that the template writes before a call, the most of them."""
    calls = [
        {"type": "function", "id": f"call_{name}", "function": {"name": name, "arguments": {"value": "one"}}}
        for name in _CALLED
    ]
    answer = {"role": "assistant", "content": _TEXT, "tool_calls": calls}
    rendered = _render(tokenizer, [_user(), answer]) or ""
    found = re.finditer(rf"(\s*)(?:{style.opening})", rendered.rpartition(_TEXT)[2])
    return max((match[1] for match in found), key=len, default="")


def _efforts(tokenizer: PromptTokenizer) -> tuple[str, ...]:
    if not _matters(tokenizer, "reasoning_effort", ("low", "high")):
        return ()
    return tuple(
        effort
        for effort in EFFORTS
        if _render(tokenizer, [_user()], add_generation_prompt=True, options={"reasoning_effort": effort})
        is not None
    )


def _matters(tokenizer: PromptTokenizer, name: str, values: Sequence[Any]) -> bool:
    """Return whether the template writes something else for each of the values of a variable."""
    if name not in _source_of(tokenizer):
        return False
    rendered = [
        _render(tokenizer, [_user()], add_generation_prompt=True, options={name: value}) for value in values
    ]
    return None not in rendered and len(set(rendered)) == len(rendered)


def _render(
    tokenizer: PromptTokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = False,
    options: Mapping[str, Any] | None = None,
) -> str | None:
    try:
        return tokenizer.render(messages, options=options or {}, add_generation_prompt=add_generation_prompt)
    except (InvalidRequestError, ConfigurationError):
        return None


def _user() -> Mapping[str, Any]:
    return {"role": "user", "content": _USER}


def _source_of(tokenizer: PromptTokenizer) -> str:
    """Return the text of the chat template, or of all of them."""
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        return "\n".join(map(str, template.values()))
    return str(template or "")


def _beginning(blanks: str) -> str:
    """Return a pattern of as much of the beginning of ``blanks`` as is there."""
    pattern = ""
    for letter in reversed(blanks):
        pattern = f"(?:{re.escape(letter)}{pattern})?"
    return pattern


def _ending(blanks: str) -> str:
    """Return a pattern of as much of the end of ``blanks`` as is there."""
    pattern = ""
    for letter in blanks:
        pattern = f"(?:{pattern}{re.escape(letter)})?"
    return pattern
