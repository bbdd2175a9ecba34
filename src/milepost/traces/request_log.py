"""Logs of text: request bodies of every API, as the served model's tokenizer makes tokens of them.

Messages go through the tokenizer's chat template with its generation prompt, as a server would do it; a
``prompt`` or ``text`` is encoded as it is, and a ``prompt`` of token ids needs no tokenizer. Which dialects
are read is said in :mod:`milepost.traces.dialects`, and what may be written around a body in
:mod:`milepost.traces.envelope`.
"""

from collections import Counter
from pathlib import Path
from typing import final

from milepost.chat.conversation import Conversation
from milepost.chat.messages import read_messages
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.traces.dialects import ChatBody, Prompt, prompts_of_body
from milepost.traces.envelope import TEXT_NAMES, OpenedLine
from milepost.traces.fields import Labels, numbered
from milepost.traces.formats import ParsedLine
from milepost.traces.media import count_media, encode_with_media
from milepost.traces.request import TraceRequest
from milepost.traces.token_ids import token_keys
from milepost.traces.turns import Turn, turn_of_keys, turn_of_messages

__all__ = ["RequestLog"]


@final
class RequestLog:
    """Lines with a request body.

    Args:
        tokenizer: Makes tokens of text; may be None for logs whose prompts are token ids.
        image_tokens: What an image counts as; None leaves the placeholder in its place.
    """

    fields = (
        "a request body with 'messages', 'prompt', 'input' or 'text', alone or under 'request', 'body' or "
        "another of the usual names"
    )

    def __init__(self, tokenizer: str | Path | None, *, image_tokens: int | None = None) -> None:
        self._tokenizer = PromptTokenizer(tokenizer)
        self._image_tokens = image_tokens

    def counts_milliseconds(self, line: OpenedLine) -> bool:
        """Return that it counts seconds."""
        return False

    def recognises(self, line: OpenedLine) -> bool:
        """Return whether there is a request body."""
        return any(name in line.body for name in TEXT_NAMES)

    def parse(self, line: OpenedLine, labels: Labels, *, place: str) -> ParsedLine:
        """Return the requests of one line."""
        body = line.body
        prompts = prompts_of_body(body)
        is_conversation = "messages" not in body and isinstance(
            body.get("conversations", body.get("conversation")), list
        )
        if is_conversation and labels["session"] is None:
            labels = Labels(**{**labels, "session": labels["request_id"]})
        read = [
            self._read(prompt, each)
            for prompt, each in zip(prompts, numbered(labels, len(prompts)), strict=True)
        ]
        media = (count_media(each.messages) if isinstance(each, ChatBody) else Counter() for each in prompts)
        return ParsedLine(
            requests=tuple(request for request, _ in read),
            is_conversation=is_conversation,
            media=tuple(media),
            turn=read[0][1] if len(read) == 1 and not is_conversation else None,
            num_ending_in_answer=sum(map(_ends_in_answer, prompts)),
        )

    def _read(self, prompt: Prompt, labels: Labels) -> tuple[TraceRequest, Turn | None]:
        breakpoints: tuple[int, ...] = ()
        if isinstance(prompt, ChatBody):
            messages = read_messages(prompt.messages)
            conversation = Conversation(
                self._tokenizer,
                messages,
                tools=prompt.tools,
                template_options=prompt.template_options,
                continue_final_message=prompt.continues_final_message,
            )
            if self._image_tokens is None:
                tokens, breakpoints = conversation.encoded()
                keys = token_keys(tokens)
            else:
                encoded = encode_with_media(
                    self._tokenizer, conversation.text, image_tokens=self._image_tokens
                )
                keys = encoded.keys
                found = {encoded.position_of(character) for character in conversation.boundaries()}
                breakpoints = tuple(sorted(found - {0}))
            turn = turn_of_messages(labels["session"], messages)
        else:
            if isinstance(prompt, str):
                prompt = self._tokenizer.encode(prompt, add_special_tokens=True).tokens
            keys = token_keys(prompt)
            turn = turn_of_keys(labels["session"], keys)
        request = TraceRequest(
            keys=keys, key_tokens=1, num_tokens=keys.size, breakpoints=breakpoints, **labels
        )
        return request, turn


def _ends_in_answer(prompt: Prompt) -> bool:
    if not isinstance(prompt, ChatBody) or prompt.continues_final_message:
        return False
    last = prompt.messages[-1]
    return isinstance(last, dict) and last.get("role") == "assistant"
