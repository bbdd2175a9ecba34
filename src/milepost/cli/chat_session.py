"""A conversation with an engine: what was said so far, and one answer at a time."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from milepost.engines.completion import Completion
from milepost.engines.engine import Engine
from milepost.engines.requests import RequestOptions

__all__ = ["ChatSession"]


class ChatSession:
    """Messages so far, and answers to what comes next.

    Args:
        engine: Of a model with a chat template.
        system: What the first message says; None for none.
        options: Of every request.

    Attributes:
        messages: All that was said, as the template takes it.
        completion: The last whole answer; None where there is none, or the last one was stopped.

    Raises:
        InvalidRequestError: the model has no chat template, or its template refuses the system message.
    """

    def __init__(self, engine: Engine, *, system: str | None, options: RequestOptions) -> None:
        self._engine = engine
        self._head = [] if system is None else [{"role": "system", "content": system}]
        self._options = options
        # Nobody should have to say something first to hear that nothing can be said.
        engine.encode([*self._head, {"role": "user", "content": "hello"}])
        self.messages: list[Mapping[str, Any]] = list(self._head)
        self.completion: Completion | None = None

    @property
    def description(self) -> str:
        """One line on what the model's cache holds."""
        return self._engine.description

    def reset(self) -> None:
        """Forget everything but the system message. What is in the cache stays there."""
        self.messages = list(self._head)

    def answer(self, said: Sequence[Mapping[str, Any]]) -> Generator[str]:
        """Yield the answer to further messages, piece by piece, and keep it.

        An answer that is stopped, by an interrupt or by leaving the loop, is kept as far as it came; where
        nothing came, or something went wrong, it is as if nothing had been said.

        Raises:
            InvalidRequestError: the messages are malformed, or there is no room for an answer.
        """
        before = list(self.messages)
        self.completion = None
        pieces: list[str] = []
        try:
            generation = self._engine.submit([*before, *said], **self._options)
            for event in self._engine.run(generation):
                pieces.append(event.text)
                yield event.text
            self.completion = generation.completion()
        finally:
            text = "".join(pieces)
            if text or self.completion is not None:
                self.messages = [*before, *said, {"role": "assistant", "content": text}]
