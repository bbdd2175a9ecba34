"""One request of HTTP on its way: who sent it, what is done for it, and what if its client goes away."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, Protocol, TypeVar

import orjson
from fastapi import Depends, Request, Response
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent

from milepost.engines.completion import Completion
from milepost.errors import MilepostError
from milepost.server.access import Caller
from milepost.server.faults import Fault, RefusedError, fault_of, refused
from milepost.server.requests import Ask
from milepost.server.settings import ServeSettings
from milepost.server.speech.speech import Speech
from milepost.server.ticket import Portion, Ticket
from milepost.server.worker import Worker

__all__ = [
    "CLIENT_GONE",
    "DONE",
    "Exchange",
    "HasExchange",
    "event_of",
    "json_of",
    "merged",
    "openai_fault_event",
    "server_sent_events",
]

T = TypeVar("T")

# What no client reads, and a log does.
CLIENT_GONE = 499
# A client that takes nothing for so long is gone.
_SEND_SECONDS = 120.0
_PING_SECONDS = 15
# How OpenAI's streams end.
DONE = ServerSentEvent(data="[DONE]", sep="\n")


class OneAnswer(Protocol):
    """Writes one answer, whole or as it comes."""

    def whole(self, completion: Completion) -> BaseModel:
        """Return it in one piece."""

    def stream(self) -> AsyncIterator[ServerSentEvent]:
        """Yield it as it is made."""

    def fault_event(self, fault: Fault) -> ServerSentEvent:
        """Return how an error is told in the middle of it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """See the module.

    Attributes:
        request: Of HTTP.
        worker: The engine's.
        settings: The server's.
        caller: Who sent it.
        request_id: What it is called, in the answer's headers too.
        started: When the server did, in seconds since 1970.
    """

    request: Request
    worker: Worker
    settings: ServeSettings
    caller: Caller
    request_id: str
    started: int

    @property
    def now(self) -> int:
        """Seconds since 1970, as answers have them."""
        return int(time.time())

    def new_id(self, prefix: str) -> str:
        """Return an id for what is answered."""
        return f"{prefix}{uuid.uuid4().hex}"

    def require_model(self, name: str | None) -> None:
        """Raise ``RefusedError`` unless ``name`` is what is served here."""
        if name is not None and name not in self.settings.model_names:
            known = ", ".join(map(repr, self.settings.model_names))
            raise RefusedError(
                Fault(
                    status=404,
                    message=f"there is no model {name!r} here; this server has {known}; another name for it "
                    "is given with --alias",
                    code="model_not_found",
                    param="model",
                )
            )

    @staticmethod
    def refuse(param: str, message: str) -> NoReturn:
        """Answer with an error about a field.

        Raises:
            RefusedError: always.
        """
        raise refused(message, param=param)

    def explains(self, include_recomputed: bool | None) -> bool:
        """Return whether usage tells why prompt tokens were computed."""
        return self.settings.includes_recomputed if include_recomputed is None else include_recomputed

    @property
    def speech(self) -> Speech:
        """What the model says and how."""
        speech: Speech = self.request.app.state.speech
        return speech

    async def submit(self, ask: Ask) -> list[Ticket]:
        """Queue what is asked; see ``Worker.submit``."""
        return await self.worker.submit(ask)

    async def submit_all(self, asks: Sequence[Ask]) -> list[Ticket]:
        """Queue several, or none where one breaks a rule."""
        tickets: list[Ticket] = []
        try:
            for ask in asks:
                tickets += await self.submit(ask)
        except BaseException:
            for ticket in tickets:
                ticket.give_up()
            raise
        return tickets

    async def completions(self, tickets: Sequence[Ticket]) -> list[Completion]:
        """Return the whole answers, unless the client goes away before: then nothing is computed any more.

        Raises:
            Exception: what broke one of them; the others are given up.
        """
        try:
            return await self.unless_gone(asyncio.gather(*(ticket.completion() for ticket in tickets)))
        finally:
            for ticket in tickets:
                ticket.give_up()

    async def reply(
        self, ask: Ask, answer_to: Callable[[Ticket], "OneAnswer"], *, is_streamed: bool
    ) -> Response:
        """Return what answers a request of one answer, whole or as it is made.

        Args:
            ask: What is asked.
            answer_to: Returns what writes the answer of a ticket.
            is_streamed: Whether it is told as it is made.
        """
        [ticket] = await self.submit(ask)
        answer = answer_to(ticket)
        if is_streamed:
            return server_sent_events(answer.stream(), [ticket], on_fault=answer.fault_event)
        [completion] = await self.completions([ticket])
        return json_of(answer.whole(completion))

    async def unless_gone(self, work: Awaitable[T]) -> T:
        """Return what ``work`` returns; cancel it where the client goes away before.

        Raises:
            RefusedError: the client is gone, and nobody reads this.
        """
        doing = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._wait_until_gone())
        try:
            await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            raise RefusedError(Fault(status=CLIENT_GONE, message="the client went away", code="client_gone"))
        finally:
            doing.cancel()
            leaving.cancel()
            await asyncio.gather(doing, leaving, return_exceptions=True)

    async def _wait_until_gone(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


async def _exchange_of(request: Request) -> Exchange:
    state = request.app.state
    caller = state.access.caller(request.headers)
    return Exchange(request, state.worker, state.settings, caller, request.state.request_id, state.started)


# What a path operation asks for.
HasExchange = Annotated[Exchange, Depends(_exchange_of)]


async def merged(tickets: Sequence[Ticket]) -> AsyncIterator[tuple[int, Portion | None]]:
    """Yield several answers as they come, each portion with its answer's number; None where that ends.

    Raises:
        Exception: what broke one of them.
    """
    if len(tickets) == 1:
        async for portion in tickets[0]:
            yield 0, portion
        yield 0, None
        return
    news: asyncio.Queue[tuple[int, Portion | Exception | None]] = asyncio.Queue()

    async def follow(number: int, ticket: Ticket) -> None:
        try:
            async for portion in ticket:
                news.put_nowait((number, portion))
            news.put_nowait((number, None))
        except Exception as error:
            news.put_nowait((number, error))

    following = [asyncio.create_task(follow(*each)) for each in enumerate(tickets)]
    try:
        num_open = len(tickets)
        while num_open:
            number, what = await news.get()
            if isinstance(what, Exception):
                raise what
            num_open -= what is None
            yield number, what
    finally:
        for task in following:
            task.cancel()


def server_sent_events(
    events: AsyncIterator[ServerSentEvent],
    tickets: Sequence[Ticket],
    *,
    on_fault: Callable[[Fault], ServerSentEvent],
) -> EventSourceResponse:
    """Return an answer that is told as it is made. Where its client goes away, or does not read, the tickets
    are given up.

    Args:
        events: What is told.
        tickets: What it is made of.
        on_fault: How an error is told once the answer has begun.
    """

    async def guarded() -> AsyncIterator[ServerSentEvent]:
        try:
            async for event in events:
                yield event
        except (MilepostError, RefusedError) as error:
            yield on_fault(fault_of(error))
        finally:
            for ticket in tickets:
                ticket.give_up()

    return EventSourceResponse(guarded(), ping=_PING_SECONDS, send_timeout=_SEND_SECONDS)


def openai_fault_event(fault: Fault) -> ServerSentEvent:
    """Return how OpenAI's clients are told of an error once the answer has begun."""
    return event_of(fault.as_openai())


def json_of(value: BaseModel | Mapping[str, Any]) -> Response:
    """Return an answer as JSON; of a model of pydantic, fields that were never set are left out."""
    return Response(_json(value), media_type="application/json")


def event_of(value: BaseModel | Mapping[str, Any], *, name: str | None = None) -> ServerSentEvent:
    """Return an event that carries ``value`` as :func:`json_of` does."""
    return ServerSentEvent(data=_json(value), event=name, sep="\n")


def _json(value: BaseModel | Mapping[str, Any]) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json(exclude_unset=True)
    return orjson.dumps(value, default=_fields_of).decode()


def _fields_of(value: object) -> dict[str, Any]:
    """Return what ``orjson`` is to write for what it does not know: a model of pydantic inside."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    raise TypeError(f"{type(value).__name__} has no JSON")
