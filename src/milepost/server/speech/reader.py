"""An answer's text to what it says, piece by piece as it comes.

transformers' ``ResponseParser`` finds where reasoning, text and calls begin and end, in whatever portions
the text arrives. It is given the template in a form in which a call is text too, marks and all: so no call
can fail in the middle of an answer. A call that is whole is then read by the same library; one that is not,
or was cut off, is text. Nothing is lost but the marks themselves, and blanks after the last call, for which
templates have no place.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from milepost.server.speech.calls import read_calls
from milepost.server.speech.pieces import Piece, Reasoning, Text, ToolCall

__all__ = ["SpeechReader", "reading_template"]

_CALLS = "tool_calls"
_REASONING = frozenset(("reasoning_content", "reasoning", "thinking"))
# Says to the parser that no more will come. Unicode keeps this character from being anybody's text; where one
# comes all the same, it ends no more than a call, which is then text.
_END = "\ufdd0"


class SpeechReader:
    """See the module. Any portioning of a text gives the same pieces, but for where one is split in two.

    Args:
        template: The model's response template; None gives text alone.
        prompt: The end of the prompt, from the answer's header on: what is begun there goes on.
        tools: Those that the model may call, as OpenAI has them, which say what a value in XML is; None
            leaves calls in the text.
        first_call_only: The answer ends with its first call, whatever else is written.
    """

    def __init__(
        self,
        template: Mapping[str, Any] | None,
        *,
        prompt: str = "",
        tools: Sequence[Any] | None = None,
        first_call_only: bool = False,
    ) -> None:
        self._parser: Any = None
        self._held = ""
        self._is_after_call = False
        self._first_call_only = first_call_only
        self._has_ended = False
        if template is None:
            return
        from transformers.utils.chat_parsing import ResponseParser, parse_response

        self._field = template["fields"].get(_CALLS) if tools else None
        self._parser = ResponseParser(reading_template(template, calls=bool(tools)), prefix=prompt)
        self._parse = partial(
            parse_response,
            response_template=_of_calls(template),
            prefix="",
            tools=None if tools is None else list(tools),
        )

    @property
    def has_ended(self) -> bool:
        """Whether the answer ended with its first call, whatever else comes."""
        return self._has_ended

    def feed(self, text: str) -> list[Piece]:
        """Return what is settled by more of the text."""
        if self._parser is None:
            return [Text(text)] if text else []
        return self._pieces(self._parser.feed(text)) if text else []

    def finish(self) -> list[Piece]:
        """Return the rest, at the answer's end."""
        if self._parser is None:
            return []
        pieces = self._pieces([*self._parser.feed(_END), *self._parser.finalize()[1]])
        last = pieces[-1] if pieces else None
        if isinstance(last, Text | Reasoning) and last.text.endswith(_END):
            rest = last.text[: -len(_END)]
            pieces[-1:] = [type(last)(rest)] if rest else []
        return pieces

    def _pieces(self, events: Sequence[Mapping[str, Any]]) -> list[Piece]:
        pieces: list[Piece] = []
        for event in events:
            field = event["field"]
            if field == _CALLS:
                if event["type"] == "region_close":
                    self._add_calls(pieces, event["value"])
            elif event["type"] == "region_chunk":
                if field in _REASONING:
                    pieces.append(Reasoning(event["text"]))
                else:
                    self._add_text(pieces, event["text"])
        return self._up_to_first_call(pieces) if self._first_call_only else pieces

    def _up_to_first_call(self, pieces: list[Piece]) -> list[Piece]:
        if self._has_ended:
            return []
        calls = [at for at, piece in enumerate(pieces) if isinstance(piece, ToolCall)]
        self._has_ended = bool(calls)
        return pieces[: calls[0] + 1] if calls else pieces

    def _add_text(self, pieces: list[Piece], text: str) -> None:
        """Add text; after a call, blanks wait for what they are before."""
        text = self._held + text
        self._held = ""
        if self._is_after_call and not text.strip(" \t\r\n" + _END):
            self._held = text.replace(_END, "")
            return
        self._is_after_call = False
        pieces.append(Text(text))

    def _add_calls(self, pieces: list[Piece], written: Mapping[str, str]) -> None:
        assert self._field is not None
        closed = written["closed"]
        is_whole = closed != _END or not _has_end(self._field)
        text = written["opened"] + written["content"] + (closed if closed != _END else "")
        calls = None
        if is_whole:
            calls = read_calls(text, written["content"], field=self._field, parse=self._parse)
        if calls is None:
            self._add_text(pieces, text)
            return
        self._held, self._is_after_call = "", True
        pieces.extend(calls)


def reading_template(template: Mapping[str, Any], *, calls: bool) -> dict[str, Any]:
    """Return a template whose fields are all texts, calls with their marks among them, or without calls.

    Args:
        template: A response template as transformers has them.
        calls: Whether calls are looked for.
    """
    fields: dict[str, Any] = {}
    for name, field in template["fields"].items():
        kept = {key: field[key] for key in ("open", "open_pattern", "close", "close_pattern") if key in field}
        if name != _CALLS and (calls or not name.startswith(_CALLS)):
            # Named groups must go somewhere; what they hold is part of a mark.
            fields[name] = {**kept, "content": "text", "transform": {"content": "{content}"}}
        elif name == _CALLS and calls:
            fields[name] = {
                "open_pattern": f"(?P<opened>{_pattern_of(field, 'open')})",
                "close_pattern": f"(?P<closed>{_pattern_of(field, 'close')}|{_END})"
                if _has_end(field)
                else f"(?P<closed>{_END})",
                "repeats": True,
                "content": "text",
                "content_args": {"strip": False},
                "transform": {name: f"{{{name}}}" for name in ("opened", "content", "closed")},
            }
    anchors = ("start_anchor", "start_anchor_pattern")
    return {**{key: template[key] for key in anchors if key in template}, "fields": fields}


def _of_calls(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template's field for calls, alone."""
    anchors = ("start_anchor", "start_anchor_pattern")
    return {
        **{key: template[key] for key in anchors if key in template},
        "fields": {_CALLS: template["fields"].get(_CALLS, {"open": _END})},
    }


def _has_end(field: Mapping[str, Any]) -> bool:
    return "close" in field or "close_pattern" in field


def _pattern_of(field: Mapping[str, Any], side: str) -> str:
    """Return the pattern of a field's ``open`` or ``close``, which may be given as one text or several."""
    if (pattern := field.get(f"{side}_pattern")) is not None:
        return f"(?:{pattern})"
    literals = field[side]
    several = [literals] if isinstance(literals, str) else sorted(literals, key=len, reverse=True)
    return "(?:" + "|".join(map(re.escape, several)) + ")"
