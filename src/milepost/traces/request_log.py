"""Logs of an OpenAI-style server: request bodies, alone or inside of what a logger wrote around them.

``{"messages": [...], "tools": [...], "cache_salt": ...}`` goes through the tokenizer's chat template with its
generation prompt, as a server would; ``{"prompt": ...}`` and ``{"text": ...}`` are encoded as they are, and a
``prompt`` of token ids needs no tokenizer. The envelope is ``{"timestamp": ..., "request": {...}, "response":
{"usage": ...}}``, with ``body`` in the place of ``request`` in OpenAI's batch files.

Where messages end
------------------
The end of a message is where the rendering of the messages up to it ends, if that is how the whole prompt
begins. Some templates refuse a conversation that ends there (no user's turn yet) or write it differently (a
last answer keeps its thoughts). Then the next message's beginning serves: the whole conversation is rendered
with that message's text replaced, and what lies before the replacement is shared by whatever follows. Where
that, too, is not how the prompt begins, the template rewrites history, and the breakpoint is dropped.

Rendering is done once a message, so a request costs O(messages · characters) for it, and O(characters) for
its tokens.
"""

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record, first_of, labels_of, whole_number
from milepost.traces.messages import read_messages
from milepost.traces.prompt_tokenizer import PromptTokenizer
from milepost.traces.request import TraceRequest
from milepost.traces.token_ids import token_keys

__all__ = ["RequestLog"]

_BODY_NAMES = ("messages", "prompt", "text")
_ENVELOPE_NAMES = ("request", "body")
# Stands for a text that is not known yet; templates trim and split texts, so it is one plain word.
_PROBE = "milepostxprobexmilepost"


class RequestLog:
    """Lines with a request body.

    Args:
        tokenizer: Makes tokens of text; may be None for logs whose prompts are token ids.
    """

    fields = "a request body with 'messages', 'prompt' or 'text', alone or under 'request' or 'body'"

    def __init__(self, tokenizer: str | Path | None) -> None:
        self._tokenizer = PromptTokenizer(tokenizer)

    def recognises(self, record: Any) -> bool:
        """Return whether there is a request body or an envelope."""
        return isinstance(record, dict) and any(name in record for name in (*_BODY_NAMES, *_ENVELOPE_NAMES))

    def parse(self, record: Any, *, line_number: int) -> TraceRequest:
        """Return the request of one line."""
        body = _body_of(record)
        labels = labels_of({**body, **record}, line_number=line_number)
        if labels["output_tokens"] is None:
            labels["output_tokens"] = _generated_tokens(record)
        tokens, breakpoints = self._prompt_of(body)
        keys = token_keys(tokens)
        return TraceRequest(keys=keys, key_tokens=1, num_tokens=keys.size, breakpoints=breakpoints, **labels)

    def _prompt_of(self, body: Record) -> tuple[list[int], tuple[int, ...]]:
        if "messages" in body:
            return self._chat_of(body)
        prompt = first_of(body, "prompt", "text")
        if isinstance(prompt, str):
            return self._tokenizer.encode(prompt, add_special_tokens=True).tokens, ()
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], str | list):
            return prompt, ()
        if isinstance(prompt, list) and prompt:
            raise InvalidRequestError(f"a batch of {len(prompt)} prompts; give each its own line")
        raise InvalidRequestError(
            f"the prompt is {reprlib.repr(prompt)}; give a text, a list of token ids, or messages"
        )

    def _chat_of(self, body: Record) -> tuple[list[int], tuple[int, ...]]:
        chat = _Chat(self._tokenizer, body)
        encoded = self._tokenizer.encode(chat.prompt, add_special_tokens=False)
        found = {encoded.position_of(character) for character in chat.boundaries()}
        return encoded.tokens, tuple(sorted(found - {0}))


class _Chat:
    """The messages of one request, as its template writes them."""

    def __init__(self, tokenizer: PromptTokenizer, body: Record) -> None:
        self._tokenizer = tokenizer
        self._messages = read_messages(body)
        self._tools = body.get("tools") or None
        options = body.get("chat_template_kwargs") or {}
        if not isinstance(options, Mapping):
            raise InvalidRequestError(f"chat_template_kwargs={reprlib.repr(options)}; give an object")
        self._options = options
        self.prompt = self._render([message.fields for message in self._messages], add_generation_prompt=True)

    def boundaries(self) -> set[int]:
        """Return the characters of the prompt where messages end or the client asked for a cache point."""
        found = set()
        for index, message in enumerate(self._messages):
            found.add(self._end_of(index))
            # What follows a cache point is not known, so it is a probe for its own position.
            found.update(
                self._probe(index, message.with_text(message.text[:offset] + _PROBE))
                for offset in message.cache_point_offsets
            )
        return {character for character in found if character is not None}

    def _end_of(self, index: int) -> int | None:
        try:
            head = self._render(self._fields(index + 1))
        except InvalidRequestError:
            head = None
        if head is not None and self.prompt.startswith(head):
            return len(head)
        if index + 1 == len(self._messages):
            return None
        return self._probe(index + 1, self._messages[index + 1].with_text(_PROBE))

    def _probe(self, index: int, probing: Mapping[str, Any]) -> int | None:
        """Return where the probe's text stands if the prompt begins as what lies before it."""
        try:
            rendered = self._render([*self._fields(index), probing])
        except InvalidRequestError:
            return None
        at = rendered.rfind(_PROBE)
        return at if at > 0 and self.prompt.startswith(rendered[:at]) else None

    def _fields(self, count: int) -> list[Mapping[str, Any]]:
        return [message.fields for message in self._messages[:count]]

    def _render(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False) -> str:
        return self._tokenizer.render(
            messages, tools=self._tools, options=self._options, add_generation_prompt=add_generation_prompt
        )


def _body_of(record: Record) -> Record:
    """Return the request body; some loggers write it as a string of JSON."""
    if any(name in record for name in _BODY_NAMES):
        return record
    body = first_of(record, *_ENVELOPE_NAMES)
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise InvalidRequestError(f"the request body is not JSON: {error}") from error
    # A log of HTTP exchanges has the body one level deeper.
    if isinstance(body, dict) and isinstance(body.get("body"), dict):
        body = body["body"]
    if not isinstance(body, dict) or not any(name in body for name in _BODY_NAMES):
        raise InvalidRequestError(
            f"the request body is {reprlib.repr(body)}; it needs 'messages', 'prompt' or 'text'"
        )
    return body


def _generated_tokens(record: Record) -> int | None:
    """Return the output tokens that a logged response counts, under either dialect's name."""
    response = record.get("response")
    if isinstance(response, dict) and isinstance(response.get("body"), dict):
        response = response["body"]
    usage = response.get("usage") if isinstance(response, dict) else None
    if not isinstance(usage, dict):
        return None
    completion_tokens = whole_number(usage, "completion_tokens")
    return whole_number(usage, "output_tokens") if completion_tokens is None else completion_tokens
