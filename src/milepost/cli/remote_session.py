"""A conversation with a server of OpenAI's API: what was said so far, and one answer at a time."""

import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from milepost.engines.requests import RequestOptions
from milepost.errors import ConfigurationError, InvalidRequestError

__all__ = ["RemoteCompletion", "RemoteSession"]

_KEY_VARIABLE = "MILEPOST_API_KEY"
# Options that OpenAI's API has under other names.
_SERVER_NAMES = {"max_new_tokens": "max_tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCompletion:
    """A whole answer, as far as its server tells of it.

    Attributes:
        text: The answer.
        finish_reason: What ended it.
        usage: Tokens of the prompt, of the answer, and those resumed.
        ttft_seconds: Until the first text came.
        seconds: Until the last did.
    """

    text: str
    finish_reason: str | None
    usage: Mapping[str, Any]
    ttft_seconds: float
    seconds: float

    def summary(self) -> str:
        """Return one line on what was reused and what it took."""
        details = self.usage.get("prompt_tokens_details") or {}
        recomputed = details.get("recomputed") or {}
        lost = ", ".join(f"{number:,} {cause}" for cause, number in recomputed.items() if number)
        asked, said = self.usage.get("prompt_tokens", 0), self.usage.get("completion_tokens", 0)
        return (
            f"{details.get('cached_tokens') or 0:,} of {asked:,} prompt tokens reused"
            f"{f' ({lost})' if lost else ''}; first text after {self.ttft_seconds:.2f} s, {said} tokens in "
            f"{self.seconds - self.ttft_seconds:.2f} s more"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": dict(self.usage),
            "ttft_seconds": self.ttft_seconds,
            "seconds": self.seconds,
        }


class RemoteSession:
    """Messages so far, and answers to what comes next; see :class:`~milepost.cli.chat_session.ChatSession`.

    Args:
        url: Of the server, as ``http://127.0.0.1:8000``; its key is in the variable ``MILEPOST_API_KEY``.
        system: What the first message says; None for none.
        options: Of every request.

    Raises:
        ConfigurationError: there is no such server, or it does not let us in.
    """

    def __init__(self, url: str, *, system: str | None, options: RequestOptions) -> None:
        self._client = openai.OpenAI(
            base_url=f"{url.rstrip('/').removesuffix('/v1')}/v1",
            api_key=os.environ.get(_KEY_VARIABLE, "none"),
        )
        try:
            self._model = self._client.models.list().data[0].id
        except openai.AuthenticationError as error:
            raise ConfigurationError(
                f"{url} asks for an API key; put one in the variable {_KEY_VARIABLE}"
            ) from error
        except (openai.APIError, IndexError) as error:
            raise ConfigurationError(
                f"no server answers at {url} ({error}); start one with `milepost serve`"
            ) from error
        self.description = f"{self._model} at {url}"
        self._head = [] if system is None else [{"role": "system", "content": system}]
        self._options = {_SERVER_NAMES.get(name, name): value for name, value in options.items()}
        self.messages: list[Mapping[str, Any]] = list(self._head)
        self.completion: RemoteCompletion | None = None

    def reset(self) -> None:
        """Forget everything but the system message. What is in the server's cache stays there."""
        self.messages = list(self._head)

    def answer(self, said: Sequence[Mapping[str, Any]]) -> Generator[str]:
        """Yield the answer to further messages, piece by piece, thoughts first, and keep it.

        Raises:
            InvalidRequestError: the server refuses the messages, or the answer breaks off.
        """
        before = list(self.messages)
        self.completion = None
        pieces: list[str] = []
        thoughts: list[str] = []
        started = time.monotonic()
        first = None
        end: dict[str, Any] = {"usage": {}, "finish_reason": None}
        try:
            for text, is_thought in self._stream([*before, *said], end):
                first = first or time.monotonic()
                (thoughts if is_thought else pieces).append(text)
                yield text
            now = time.monotonic()
            self.completion = RemoteCompletion(
                text="".join(pieces), ttft_seconds=(first or now) - started, seconds=now - started, **end
            )
        finally:
            if pieces or thoughts or self.completion is not None:
                # Thoughts go back as they came: to the byte, or what follows them is computed again.
                thought = {"reasoning_content": "".join(thoughts)} if thoughts else {}
                spoken = {"role": "assistant", "content": "".join(pieces), **thought}
                self.messages = [*before, *said, spoken]

    def _stream(self, messages: Sequence[Any], end: dict[str, Any]) -> Generator[tuple[str, bool]]:
        """Yield the pieces of an answer, each with whether it is a thought; ``end`` gets what ends it."""
        try:
            with self._client.chat.completions.create(
                model=self._model,
                messages=list(messages),
                stream=True,
                stream_options={"include_usage": True},
                extra_body={**self._options, "include_recomputed": True},
            ) as stream:
                for chunk in stream:
                    if chunk.usage is not None:
                        end["usage"] = chunk.usage.model_dump(exclude_none=True)
                    for choice in chunk.choices:
                        end["finish_reason"] = choice.finish_reason or end["finish_reason"]
                        if thought := getattr(choice.delta, "reasoning_content", None):
                            yield thought, True
                        if choice.delta.content:
                            yield choice.delta.content, False
        except openai.APIError as error:
            message = error.body.get("message") if isinstance(error.body, dict) else None
            raise InvalidRequestError(message or str(error)) from error
