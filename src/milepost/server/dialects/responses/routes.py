"""``/v1/responses`` over the engine."""

from collections.abc import AsyncIterator
from typing import Any, NoReturn

from fastapi import APIRouter
from openai.types.responses import Response, ResponseStreamEvent
from sse_starlette import ServerSentEvent

from milepost.engines.completion import Completion
from milepost.server.dialects.fields import sampling_options
from milepost.server.dialects.responses.answer import ResponseWriter
from milepost.server.dialects.responses.body import ResponsesBody
from milepost.server.dialects.responses.prompt import messages_of, tools_of
from milepost.server.documented import FAULTS, STREAMED
from milepost.server.exchange import Exchange, HasExchange, event_of
from milepost.server.faults import Fault, RefusedError
from milepost.server.requests import Ask
from milepost.server.speech.pieces import Piece, Reasoning
from milepost.server.ticket import Ticket
from milepost.server.usage import response_usage

__all__ = ["router"]

router = APIRouter(responses=FAULTS, tags=["OpenAI"])


@router.post("/v1/responses", response_model=Response, responses=STREAMED)
async def create_response(body: ResponsesBody, exchange: HasExchange) -> Any:
    """Answer a conversation, which the client keeps."""
    exchange.require_model(body.model)
    reasoning = body.reasoning
    told = exchange.speech.template_options(
        thinks=None if reasoning is None else reasoning.thinks,
        effort=None if reasoning is None else reasoning.effort,
    )
    options = sampling_options(body) | {
        "max_new_tokens": body.max_output_tokens or exchange.settings.max_answer_tokens,
        "tools": tools_of(body.used_tools) or None,
        "chat_template_kwargs": told | (body.chat_template_kwargs or {}) or None,
        "tenant": exchange.caller.tenant(body.cache_salt),
    }
    ask = Ask(prompt=messages_of(body), options=options, request_id=exchange.request_id)
    return await exchange.reply(
        ask, lambda ticket: _Answer(body, exchange, ticket), is_streamed=bool(body.stream)
    )


@router.get("/v1/responses/{response_id}", status_code=404, responses={404: FAULTS[404]})
async def get_response(response_id: str, exchange: HasExchange) -> None:
    """Say that no answers are kept."""
    _refuse_kept(response_id)


@router.delete("/v1/responses/{response_id}", status_code=404, responses={404: FAULTS[404]})
async def delete_response(response_id: str, exchange: HasExchange) -> None:
    """Say that no answers are kept."""
    _refuse_kept(response_id)


def _refuse_kept(response_id: str) -> NoReturn:
    message = (
        f"there is no answer {response_id!r}: none are kept here; send the conversation with each request"
    )
    raise RefusedError(Fault(status=404, message=message, param="response_id", code="not_found"))


class _Answer:
    """One answer, of which the engine gives the text."""

    def __init__(self, body: ResponsesBody, exchange: Exchange, ticket: Ticket) -> None:
        self._ticket = ticket
        self._tokenizer = exchange.worker.tokenizer
        self._explains = exchange.explains(body.include_recomputed)
        self._thought = ""
        self._writer = ResponseWriter(
            body,
            response_id=exchange.new_id("resp_"),
            model=exchange.settings.model_name,
            created=exchange.now,
            new_id=exchange.new_id,
        )
        self._reader = exchange.speech.reader(
            ticket.request.tokens.tolist(),
            tools=tools_of(body.used_tools) or None,
            first_call_only=body.parallel_tool_calls is False,
        )

    def whole(self, completion: Completion) -> Response:
        """Return it in one piece."""
        pieces = self._noted([*self._reader.feed(completion.text), *self._reader.finish()])
        return self._writer.whole(pieces, **self._ending(completion))

    async def stream(self) -> AsyncIterator[ServerSentEvent]:
        """Yield it as it is made."""
        for first in self._writer.begin():
            yield _event(first)
        async for portion in self._ticket:
            for event in self._told(self._reader.feed(portion.text)):
                yield event
        for event in self._told(self._reader.finish()):
            yield event
        for last in self._writer.end(**self._ending(self._ticket.completion_now())):
            yield _event(last)

    def fault_event(self, fault: Fault) -> ServerSentEvent:
        """Return how an error is told in the middle of it."""
        return _event(self._writer.fail(fault))

    def _told(self, pieces: list[Piece]) -> list[ServerSentEvent]:
        return [_event(event) for piece in self._noted(pieces) for event in self._writer.tell(piece)]

    def _noted(self, pieces: list[Piece]) -> list[Piece]:
        self._thought += "".join(piece.text for piece in pieces if isinstance(piece, Reasoning))
        return pieces

    def _ending(self, completion: Completion) -> dict[str, Any]:
        usage = response_usage(
            completion,
            reasoning_tokens=len(self._tokenizer.encode(self._thought)) if self._thought else 0,
            includes_recomputed=self._explains,
        )
        is_cut = completion.finish_reason == "length" and not self._reader.has_ended
        return {"usage": usage, "is_cut": is_cut}


def _event(event: ResponseStreamEvent) -> ServerSentEvent:
    return event_of(event, name=event.type)
