"""Text in and out: what the engine asks of a tokenizer, and text that grows token by token.

A stream emits text only once it is settled: a token that ends inside a character waits for the rest of
it, and the beginning of what might become a stop string waits until it does or cannot. No wait is for ever:
a character has at most four bytes, so of many tokens that end in no character all but the last three are
settled as what they are, which is no text. So a token costs two decodings of a bounded number of tokens.
"""

from collections.abc import Sequence
from typing import Protocol

from milepost.errors import InvalidRequestError

__all__ = ["TextStream", "Tokenizer", "checked_text"]

_REPLACEMENT = "�"
# A context of this many tokens settles how the next token's text joins on (spaces, ligatures).
_CONTEXT_TOKENS = 8
# Beyond this many unsettled tokens, no character explains that they are not settled ...
_MOST_UNSETTLED_TOKENS = 8
# ... and only this many can be the beginning of one: UTF-8 takes four bytes, and a token is at least one.
_LONGEST_BEGINNING = 3


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
        if not after.endswith(_REPLACEMENT):
            return self._settle(len(self._tokens), before, after)
        if len(self._tokens) - self._settled_tokens <= _MOST_UNSETTLED_TOKENS:
            return ""
        # Not inside of a character: what was given out must be how the text goes on to begin.
        for end in range(len(self._tokens) - _LONGEST_BEGINNING, self._settled_tokens, -1):
            text = self._tokenizer.decode(self._tokens[self._context_start : end])
            if after.startswith(text):
                return self._settle(end, before, text)
        return self._settle(len(self._tokens), before, after)

    def _settle(self, num_tokens: int, before: str, after: str) -> str:
        """Give out the text up to a number of tokens, ``after``, without what was given out, ``before``."""
        self._context_start = max(0, num_tokens - _CONTEXT_TOKENS)
        self._settled_tokens = num_tokens
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


def checked_text(text: str) -> str:
    """Return ``text`` if it can be encoded: half of a surrogate pair, alone, is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"the text holds {text[error.start]!r} at position {error.start}, half of a surrogate pair and "
            "no character; decode the text properly, or remove it"
        ) from error
    return text


def _longest_overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that begins ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
