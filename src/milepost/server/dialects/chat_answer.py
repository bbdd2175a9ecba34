"""What a model says as the answers of ``/v1/chat/completions``, whole or piece by piece.

Reasoning is told as ``reasoning_content``, which clients that know of it send back with the message: the next
prompt then repeats it. A call of a tool is told once it is whole.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openai.types.chat import ChatCompletion
from sse_starlette import ServerSentEvent

from milepost.engines.completion import Completion
from milepost.engines.sampling import TokenLogprobs
from milepost.server.dialects.logprobs import chat_logprobs
from milepost.server.exchange import DONE, Exchange, event_of, merged
from milepost.server.speech.pieces import Piece, Reasoning, Text, ToolCall
from milepost.server.ticket import Ticket
from milepost.server.usage import openai_usage

__all__ = ["ChatWriter", "Wanted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the answers are to tell.

    Attributes:
        tools: Those that may be called, as OpenAI has them; None for none.
        first_call_only: Of several calls, the first one.
        num_top: The likeliest tokens to tell of each; None for no log-probabilities.
        tells_usage: Whether a last chunk tells the usage.
        explains: Whether that says why prompt tokens were computed.
    """

    tools: Sequence[Any] | None
    first_call_only: bool
    num_top: int | None
    tells_usage: bool
    explains: bool


class ChatWriter:
    """Writes what a chat request is answered: one answer for each ticket."""

    def __init__(self, exchange: Exchange, tickets: Sequence[Ticket], wanted: Wanted) -> None:
        self._tickets = tickets
        self._wanted = wanted
        self._tokenizer = exchange.worker.tokenizer
        self._new_id = exchange.new_id
        self._num_calls = [0] * len(tickets)
        self._thoughts = ""
        self._readers = [
            exchange.speech.reader(
                ticket.request.tokens.tolist(), tools=wanted.tools, first_call_only=wanted.first_call_only
            )
            for ticket in tickets
        ]
        self._head = {
            "id": exchange.new_id("chatcmpl-"),
            "created": exchange.now,
            "model": exchange.settings.model_name,
        }

    def whole(self, completions: Sequence[Completion]) -> ChatCompletion:
        """Return the answers in one piece."""
        choices = [self._choice(index, completion) for index, completion in enumerate(completions)]
        return ChatCompletion.model_validate(
            {
                **self._head,
                "object": "chat.completion",
                "choices": choices,
                "usage": self._usage(completions),
            }
        )

    async def stream(self) -> AsyncIterator[ServerSentEvent]:
        """Yield the answers as they are made."""
        for index in range(len(self._tickets)):
            yield self._chunk(index, {"role": "assistant", "content": ""})
        async for index, portion in merged(self._tickets):
            reader = self._readers[index]
            deltas = self._deltas(index, reader.finish() if portion is None else reader.feed(portion.text))
            if portion is not None and portion.logprobs:
                # They are of tokens, whose text may be held back, or told in several pieces.
                found = self._logprobs(portion.logprobs)
                yield self._chunk(index, next(deltas, {"content": ""}), logprobs=found)
            for delta in deltas:
                yield self._chunk(index, delta)
            if portion is None:
                completion = self._tickets[index].completion_now()
                yield self._chunk(index, {}, finish_reason=self._finish_reason(index, completion))
        if self._wanted.tells_usage:
            usage = self._usage([ticket.completion_now() for ticket in self._tickets])
            yield self._event(choices=[], usage=usage)
        yield DONE

    def _choice(self, index: int, completion: Completion) -> dict[str, Any]:
        reader = self._readers[index]
        text, thoughts, calls = "", "", []
        for delta in self._deltas(index, [*reader.feed(completion.text), *reader.finish()]):
            text += delta.get("content", "")
            thoughts += delta.get("reasoning_content", "")
            calls += delta.get("tool_calls", [])
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if thoughts:
            message["reasoning_content"] = thoughts
        if calls:
            message["content"] = text or None
            message["tool_calls"] = [
                {name: value for name, value in call.items() if name != "index"} for call in calls
            ]
        return {
            "index": index,
            "finish_reason": self._finish_reason(index, completion),
            "logprobs": self._logprobs(completion.logprobs),
            "message": message,
        }

    def _deltas(self, index: int, pieces: Sequence[Piece]) -> Iterator[dict[str, Any]]:
        """Yield what pieces add to an answer."""
        for piece in pieces:
            match piece:
                case Text():
                    yield {"content": piece.text}
                case Reasoning():
                    self._thoughts += piece.text
                    yield {"reasoning_content": piece.text}
                case ToolCall():
                    function = {"name": piece.name, "arguments": piece.arguments}
                    call_id = piece.id or self._new_id("call_")
                    number = self._num_calls[index]
                    self._num_calls[index] += 1
                    call = {"index": number, "id": call_id, "type": "function", "function": function}
                    yield {"tool_calls": [call]}

    def _finish_reason(self, index: int, completion: Completion) -> str:
        is_called = self._num_calls[index] and completion.finish_reason == "stop"
        return "tool_calls" if is_called or self._readers[index].has_ended else completion.finish_reason

    def _usage(self, completions: Sequence[Completion]) -> Any:
        # Counted as the model writes them.
        reasoning = len(self._tokenizer.encode(self._thoughts)) if self._thoughts else 0
        return openai_usage(
            completions, reasoning_tokens=reasoning, includes_recomputed=self._wanted.explains
        )

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> ServerSentEvent:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return self._event(choices=[choice])

    def _event(self, **fields: Any) -> ServerSentEvent:
        # A ``ChatCompletionChunk``, as tests see to: to check each token's would cost as much as to send it.
        whole = {**self._head, "object": "chat.completion.chunk", **fields}
        return event_of(whole)

    def _logprobs(self, found: Sequence[TokenLogprobs] | None) -> dict[str, Any] | None:
        if found is None or self._wanted.num_top is None:
            return None
        content = chat_logprobs(self._tokenizer, found, num_top=self._wanted.num_top)
        return {"content": content, "refusal": None}
