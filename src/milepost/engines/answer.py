"""An answer as it grows: its tokens, its text, and what ends it."""

from dataclasses import replace

from milepost.engines.completion import FinishReason, TokenEvent
from milepost.engines.requests import GenerationRequest
from milepost.engines.sampling import TokenLogprobs
from milepost.engines.text import TextStream, Tokenizer

__all__ = ["Answer"]


class Answer:
    """What one request has been answered so far.

    Attributes:
        tokens: Its tokens, end tokens left out.
        logprobs: Of each token, where they are asked for.
        finish_reason: What ended it; None while it grows.
    """

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer | None) -> None:
        self._request = request
        self._stream = None if tokenizer is None else TextStream(tokenizer, request.stop)
        self._text: list[str] = []
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        """The text so far, as far as it is settled."""
        return "".join(self._text)

    def accept(self, token: int, logprobs: TokenLogprobs | None) -> list[TokenEvent]:
        """Take the next token in, and return what a listener is told of it."""
        if token in self._request.end_tokens:
            self.finish_reason = "stop"
            return self._flush(None)
        self.tokens.append(token)
        if logprobs is not None:
            self.logprobs.append(logprobs)
        text = "" if self._stream is None else self._stream.push(token)
        self._text.append(text)
        if self._is_stopped:
            self.finish_reason = "stop"
        elif len(self.tokens) >= self._request.max_new_tokens:
            events = self._flush(TokenEvent(token, text, logprobs))
            self.finish_reason = "stop" if self._is_stopped else "length"
            return events
        return [TokenEvent(token, text, logprobs)]

    @property
    def _is_stopped(self) -> bool:
        return self._stream is not None and self._stream.stopped

    def _flush(self, event: TokenEvent | None) -> list[TokenEvent]:
        """Add the text that was held back to the last event."""
        rest = "" if self._stream is None else self._stream.finish()
        self._text.append(rest)
        if event is not None:
            return [replace(event, text=event.text + rest)]
        return [TokenEvent(None, rest)] if rest else []
