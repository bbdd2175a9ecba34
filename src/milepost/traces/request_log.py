"""Logs of an OpenAI-style server: request bodies, alone or inside of what a logger wrote around them.

``{"messages": [...], "tools": [...], "cache_salt": ...}`` goes through the tokenizer's chat template with its
generation prompt, as a server would; ``{"prompt": ...}`` and ``{"text": ...}`` are encoded as they are, and a
``prompt`` of token ids needs no tokenizer. The envelope is ``{"timestamp": ..., "request": {...}, "response":
{"usage": ...}}``, with ``body`` in the place of ``request`` in OpenAI's batch files.
"""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from milepost.chat.conversation import Conversation
from milepost.chat.messages import read_messages
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record, first_of, labels_of, whole_number
from milepost.traces.request import TraceRequest
from milepost.traces.token_ids import token_keys

__all__ = ["RequestLog"]

_BODY_NAMES = ("messages", "prompt", "text")
_ENVELOPE_NAMES = ("request", "body")


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
        options = body.get("chat_template_kwargs") or {}
        if not isinstance(options, Mapping):
            raise InvalidRequestError(f"chat_template_kwargs={reprlib.repr(options)}; give an object")
        return Conversation(
            self._tokenizer, read_messages(body), tools=body.get("tools"), template_options=options
        ).encoded()


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
