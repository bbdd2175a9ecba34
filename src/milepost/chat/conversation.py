"""Chat messages to the tokens that a model reads, and where in them each message ends.

The end of a message is where the rendering of the messages up to it ends, if that is how the whole prompt
begins. Some templates refuse a conversation that ends there (no user's turn yet) or write it differently (a
last answer keeps its thoughts). Then the next message's beginning serves: the whole conversation is rendered
with that message's text replaced, and what lies before the replacement is shared by whatever follows. Where
that, too, is not how the prompt begins, the template rewrites history, and the breakpoint is dropped.

Rendering is done once a message, and remembered (:mod:`milepost.chat.heads`): a first request costs
O(messages · characters), the next turn of the same conversation O(new messages · characters) and a look at
the rest. Its tokens cost O(characters).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import xxhash

from milepost.chat.messages import Message
from milepost.chat.prompt_tokenizer import PROBE, PromptTokenizer
from milepost.errors import InvalidRequestError

__all__ = ["Conversation", "EncodedConversation"]

# Roles that templates know; what one of them leaves out of these (an answer's thoughts) it leaves out on
# purpose.
_USUAL_ROLES = frozenset(("system", "user", "assistant", "tool", "function"))


@dataclass(frozen=True, slots=True)
class EncodedConversation:
    """The tokens of a conversation.

    Attributes:
        tokens: Of the prompt.
        breakpoints: Positions where messages end or a cache point is, ascending.
        pins: Positions of the client's cache points, each with the seconds for which it asks.
    """

    tokens: list[int]
    breakpoints: tuple[int, ...] = ()
    pins: tuple[tuple[int, float], ...] = ()


class Conversation:
    """The messages of one request, as its template writes them.

    Args:
        tokenizer: Renders and encodes.
        messages: At least one.
        tools: For the template; None for none.
        template_options: Passed on to the template, as ``enable_thinking``.
        continue_final_message: The answer continues the last message; else it is a new one.

    Attributes:
        text: The prompt as the template renders it.

    Raises:
        InvalidRequestError: the template refuses these messages, or leaves those of an unusual role out, or
            there is no text to continue.
    """

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        messages: Sequence[Message],
        *,
        tools: Any = None,
        template_options: Mapping[str, Any] | None = None,
        continue_final_message: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._tools = tools or None
        self._options = template_options or {}
        self._continues = continue_final_message
        last = messages[-1]
        if continue_final_message and last.fields.get("tool_calls") and not last.text:
            raise InvalidRequestError(
                "the answer continues the last message, which calls tools and has no text; add what they "
                "said, or say continue_final_message=False"
            )
        self._messages = self._with_known_roles(messages)
        self.text = self._render(
            [message.fields for message in self._messages],
            add_generation_prompt=not continue_final_message,
            continue_final_message=continue_final_message,
        )
        first = _key(b"", [tokenizer.chat_template, self._tools, self._options])
        self._keys = list(accumulate(self._fields(len(self._messages)), _key, initial=first))

    def encoded(self) -> tuple[list[int], tuple[int, ...]]:
        """Return the prompt's tokens, and at how many of them its messages end or a cache point is."""
        found = self.encode()
        return found.tokens, found.breakpoints

    def encode(self, *, with_pins: bool = False) -> "EncodedConversation":
        """Return the prompt's tokens and what is known of positions among them.

        Args:
            with_pins: Whether to read for how long the client's cache points ask.

        Raises:
            InvalidRequestError: a cache point asks for a time that no API has.
        """
        pins = self.pins() if with_pins else {}
        encoded = self._tokenizer.encode(self.text, add_special_tokens=False)
        if encoded.end_characters is None:
            return EncodedConversation(encoded.tokens)
        found = {encoded.position_of(character) for character in self.boundaries()}
        at = [(encoded.position_of(character), seconds) for character, seconds in pins.items()]
        return EncodedConversation(
            encoded.tokens,
            breakpoints=tuple(sorted(found - {0})),
            pins=tuple(pin for pin in at if pin[0]),
        )

    def boundaries(self) -> set[int]:
        """Return the characters of the prompt where messages end or the client asked for a cache point."""
        found = set()
        for index, message in enumerate(self._messages):
            found.add(self._end_of(index))
            # What follows a cache point is not known, so it is a probe for its own position.
            found.update(
                self._length_of(index, message.with_text(message.text[:offset] + PROBE))
                for offset in message.cache_point_offsets
            )
        return {character for character in found if character is not None}

    def pins(self) -> dict[int, float]:
        """Return the characters of the prompt that the client's cache points are at, each with the seconds
        for which it asks. One that the template leaves no place for is left out.
        """
        found: dict[int, float] = {}
        for index, message in enumerate(self._messages):
            for point in message.cache_points:
                seconds = point.ttl_seconds
                if point.offset == len(message.text):
                    at = self._end_of(index)
                else:
                    at = self._length_of(index, message.with_text(message.text[: point.offset] + PROBE))
                if at is not None:
                    found[at] = max(seconds, found.get(at, 0.0))
        return found

    def ignores_tools(self) -> bool:
        """Return whether there are tools and the template renders the same prompt without them."""
        if self._tools is None:
            return False
        try:
            without = self._tokenizer.render(
                self._fields(len(self._messages)),
                options=self._options,
                add_generation_prompt=not self._continues,
                continue_final_message=self._continues,
            )
        except InvalidRequestError:  # calls of tools may need their tools
            return False
        return without == self.text

    def _with_known_roles(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages as the template knows them: a developer's may have to be the system's."""
        given = list(messages)
        unusual = {message.fields["role"] for message in given} - _USUAL_ROLES
        left_out = sorted(role for role in unusual if not self._shows(given, role))
        if not left_out:
            return given
        if left_out == ["developer"]:
            return [
                Message({**message.fields, "role": "system"}, message.cache_points)
                if message.fields["role"] == "developer"
                else message
                for message in given
            ]
        self._render([message.fields for message in given])  # where it refuses them, in its own words
        raise InvalidRequestError(
            f"the chat template of {self._tokenizer.name} leaves out messages of role {left_out[0]!r}; use a "
            "role that it knows"
        )

    def _shows(self, messages: Sequence[Message], role: str) -> bool:
        """Return whether the template writes the text of messages of ``role``."""
        probing = [
            message.with_text(PROBE) if message.fields["role"] == role else message.fields
            for message in messages
        ]
        try:
            return PROBE in self._render(probing)
        except InvalidRequestError:
            return False

    def _end_of(self, index: int) -> int | None:
        end = self._length_of(index + 1)
        if end is not None or index + 1 == len(self._messages):
            return end
        return self._length_of(index + 1, self._messages[index + 1].with_text(PROBE))

    def _length_of(self, count: int, probing: Mapping[str, Any] | None = None) -> int | None:
        """Return how many characters the first messages take, with what is written of another before its
        probe; None where the prompt does not begin so.
        """
        # A key, and the text that it stands for, are of the template as it is now.
        key = self._keys[count] if probing is None else _key(self._keys[count], probing)
        head = self._tokenizer.heads.get(key, lambda: self._render_head(count, probing))
        return head.length if head is not None and head.begins(self.text) else None

    def _render_head(self, count: int, probing: Mapping[str, Any] | None) -> str | None:
        try:
            rendered = self._render([*self._fields(count), *([] if probing is None else [probing])])
        except InvalidRequestError:
            return None
        if probing is None:
            return rendered
        at = rendered.rfind(PROBE)
        return rendered[:at] if at > 0 else None

    def _fields(self, count: int) -> list[Mapping[str, Any]]:
        return [message.fields for message in self._messages[:count]]

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
    ) -> str:
        return self._tokenizer.render(
            messages,
            tools=self._tools,
            options=self._options,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )


def _key(before: bytes, what: Any) -> bytes:
    """Return a digest of one more thing after others."""
    return xxhash.xxh3_128_digest(before + repr(what).encode(errors="surrogatepass"))
