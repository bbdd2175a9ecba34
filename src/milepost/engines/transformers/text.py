"""Text in and out: what the engine asks of a tokenizer, and text that grows token by token.

A stream emits text only once it is settled: a token that ends inside a character waits for the rest of
it, and the beginning of what might become a stop string waits until it does or cannot.
"""

from collections.abc import Sequence
from typing import Protocol

from milepost.errors import InvalidRequestError

__all__ = ["TextStream", "Tokenizer"]

_REPLACEMENT = "�"
# A context of this many tokens settles how the next token's text joins on (spaces, ligatures).
_CONTEXT_TOKENS = 8


class Tokenizer(Protocol):
    """The two methods the engine uses; every Hugging Face tokenizer has them."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ``token_ids``."""


class TextStream:
    """Turns one request's tokens into settled text and watches for its stop strings."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        if any(not isinstance(text, str) for text in stop):
            raise InvalidRequestError(f"stop={stop!r}; stop strings are strings")
        if any(not text for text in stop):
            raise InvalidRequestError(
                "a stop string is empty; it would stop every request at once: remove it"
            )
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._tokens: list[int] = []
        self._context_start = 0
        self._settled_tokens = 0
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token and return the text that is settled by it."""
        self._tokens.append(token)
        before = self._tokenizer.decode(self._tokens[self._context_start : self._settled_tokens])
        after = self._tokenizer.decode(self._tokens[self._context_start :])
        if after.endswith(_REPLACEMENT):
            return ""
        self._context_start = max(0, len(self._tokens) - _CONTEXT_TOKENS)
        self._settled_tokens = len(self._tokens)
        return self._release(self._held + after[len(before) :])

    def finish(self) -> str:
        """Return the text still held back, at the end of a request that has met no stop string so far."""
        if self.stopped:
            return ""
        before = self._tokenizer.decode(self._tokens[self._context_start : self._settled_tokens])
        after = self._tokenizer.decode(self._tokens[self._context_start :])
        self._settled_tokens = len(self._tokens)
        settled = self._release(self._held + after[len(before) :])
        held, self._held = self._held, ""
        return settled + held

    def _release(self, text: str) -> str:
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max((_longest_overlap(text, stop) for stop in self._stop), default=0)
        cut = len(text) - keep
        self._held = text[cut:]
        return text[:cut]


def _longest_overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that begins ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
