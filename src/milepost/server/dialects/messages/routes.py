"""``/v1/messages`` and ``/v1/messages/count_tokens`` over the engine."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from anthropic.types import Message, MessageTokensCount
from fastapi import APIRouter
from pydantic import BaseModel
from sse_starlette import ServerSentEvent

from milepost.engines.completion import Completion
from milepost.engines.text import Tokenizer
from milepost.server.dialects.messages.answer import Ending, MessageWriter
from milepost.server.dialects.messages.body import CountBody, MessagesBody, PromptFields
from milepost.server.dialects.messages.prompt import messages_of, tools_of
from milepost.server.documented import ANTHROPIC_FAULTS, STREAMED
from milepost.server.exchange import Exchange, HasExchange, event_of
from milepost.server.faults import Fault
from milepost.server.requests import Ask
from milepost.server.speech.pieces import Piece
from milepost.server.speech.reader import SpeechReader
from milepost.server.ticket import Ticket
from milepost.server.usage import anthropic_usage, anthropic_usage_so_far

__all__ = ["router"]

router = APIRouter(responses=ANTHROPIC_FAULTS, tags=["Anthropic"])


@router.post("/v1/messages", response_model=Message, responses=STREAMED)
async def create_message(body: MessagesBody, exchange: HasExchange) -> Any:
    """Answer a chat."""
    exchange.require_model(body.model)
    options = _prompt_options(body, exchange) | {
        "max_new_tokens": body.max_tokens or 1,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "stop": body.stop_sequences or None,
        "tenant": exchange.caller.tenant(body.cache_salt),
    }
    ask = Ask(prompt=messages_of(body), options=options, request_id=exchange.request_id)
    return await exchange.reply(
        ask, lambda ticket: _Answer(body, exchange, ticket), is_streamed=bool(body.stream)
    )


@router.post("/v1/messages/count_tokens")
async def count_tokens(body: CountBody, exchange: HasExchange) -> MessageTokensCount:
    """Tell how many tokens a prompt has."""
    exchange.require_model(body.model)
    messages, options = messages_of(body), _prompt_options(body, exchange)
    request = await exchange.worker.read(lambda engine: engine.read(messages, **options))
    return MessageTokensCount(input_tokens=request.tokens.size)


def _prompt_options(body: PromptFields, exchange: Exchange) -> dict[str, Any]:
    """Return the engine's options for what makes the prompt."""
    told = exchange.speech.template_options(
        thinks=None if body.thinking is None else body.thinking.thinks,
        effort=None if body.output_config is None else body.output_config.effort,
    )
    return {"tools": tools_of(body.used_tools) or None, "chat_template_kwargs": told or None}


class _Answer:
    """One answer, of which the engine gives the text."""

    def __init__(self, body: MessagesBody, exchange: Exchange, ticket: Ticket) -> None:
        self._body = body
        self._ticket = ticket
        self._tokenizer = exchange.worker.tokenizer
        self._request_id = exchange.request_id
        self._writer = MessageWriter(
            message_id=exchange.new_id("msg_"),
            model=exchange.settings.model_name,
            shows_thoughts=body.thinking is None or body.thinking.display != "omitted",
            new_id=lambda: exchange.new_id("toolu_"),
        )
        choice = body.tool_choice
        self._reader: SpeechReader = exchange.speech.reader(
            ticket.request.tokens.tolist(),
            tools=tools_of(body.used_tools) or None,
            first_call_only=choice is not None and bool(choice.disable_parallel_tool_use),
        )

    def whole(self, completion: Completion) -> Message:
        """Return it in one piece."""
        pieces = [*self._read(completion.text), *self._read(None)]
        return self._writer.whole(pieces, self._ending(completion))

    async def stream(self) -> AsyncIterator[ServerSentEvent]:
        """Yield it as it is made; it begins with its first token, when what was reused is known."""
        has_begun = False
        async for portion in self._ticket:
            if not has_begun:
                has_begun = True
                for first in self._beginning():
                    yield first
            for told in self._told(self._read(portion.text)):
                yield told
        if not has_begun:
            for first in self._beginning():
                yield first
        for told in self._told(self._read(None)):
            yield told
        for last in self._writer.end(self._ending(self._ticket.completion_now())):
            yield _event(last)

    def fault_event(self, fault: Fault) -> ServerSentEvent:
        """Return how an error is told in the middle of it."""
        return event_of(fault.as_anthropic(self._request_id), name="error")

    def _beginning(self) -> Sequence[ServerSentEvent]:
        generation = self._ticket.generation
        report = None if generation is None else generation.prompt.report
        used = anthropic_usage_so_far(report, num_prompt_tokens=self._ticket.request.tokens.size)
        return [_event(self._writer.begin(used)), event_of({"type": "ping"}, name="ping")]

    def _read(self, text: str | None) -> list[Piece]:
        """Return what more of the text says; of its end, for None."""
        if not self._body.max_tokens:
            return []
        return self._reader.finish() if text is None else self._reader.feed(text)

    def _told(self, pieces: Sequence[Piece]) -> Sequence[ServerSentEvent]:
        return [_event(event) for piece in pieces for event in self._writer.tell(piece)]

    def _ending(self, completion: Completion) -> Ending:
        generated = len(completion.tokens) if self._body.max_tokens else 0
        usage = anthropic_usage(completion, num_generated=generated)
        if completion.finish_reason == "length" and not self._reader.has_ended:
            is_cut = completion.is_cut_by_context
            return Ending("model_context_window_exceeded" if is_cut else "max_tokens", None, usage)
        met = stop_that_was_met(completion, self._body.stop_sequences or (), self._tokenizer)
        return Ending("end_turn" if met is None else "stop_sequence", met, usage)


def stop_that_was_met(completion: Completion, stops: Sequence[str], tokenizer: Tokenizer) -> str | None:
    """Return the one of ``stops`` that ended an answer; None where something else did."""
    if not stops:
        return None
    written = tokenizer.decode(list(completion.tokens))
    rest = written[len(completion.text) :] if written.startswith(completion.text) else ""
    return next((stop for stop in stops if rest.startswith(stop)), None)


def _event(value: BaseModel) -> ServerSentEvent:
    return event_of(value, name=getattr(value, "type", None))
