"""One answer on its way from the engine's thread to the client that waits for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import final

from milepost.engines.completion import Completion, TokenEvent
from milepost.engines.generation import Generation
from milepost.engines.requests import GenerationRequest
from milepost.engines.sampling import TokenLogprobs

__all__ = ["Handed", "Portion", "Ticket", "Times"]


@dataclass(slots=True)
class Times:
    """When what happened to a request, in seconds of ``time.monotonic``; None until it has.

    Attributes:
        submitted: It was read, and queued.
        begun: The engine took it on.
        first_token: Its prompt was computed.
        ended: Its answer was whole, or it was given up, or failed.
    """

    submitted: float
    begun: float | None = None
    first_token: float | None = None
    ended: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """What one turn produced of one answer.

    Attributes:
        ticket: Whose.
        events: Its tokens.
        at: When, in seconds of ``time.monotonic``.
        outcome: The whole answer, or what broke it; None while it goes on.
    """

    ticket: "Ticket"
    events: tuple[TokenEvent, ...]
    at: float
    outcome: Completion | Exception | None = None


@dataclass(frozen=True, slots=True)
class Portion:
    """What was added to an answer since its client was last told.

    Attributes:
        text: Of one token or several; empty where none is settled yet.
        logprobs: Of each token; empty unless they were asked for.
    """

    text: str
    logprobs: tuple[TokenLogprobs, ...]


@final
class Ticket:
    """See the module. Belongs to the event loop; the engine's thread touches ``generation`` alone.

    Attributes:
        request: What was asked, read.
        request_id: What it is called.
        live_bytes: What it takes beside the cache while it runs.
        times: What happened to it when.
        generation: The engine's side of it, once it runs.
        outcome: The whole answer, or what broke it; None while it goes on.
        is_given_up: Whether nobody listens any more.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        request_id: str,
        live_bytes: int,
        submitted: float,
        on_give_up: Callable[["Ticket"], None],
    ) -> None:
        self.request = request
        self.request_id = request_id
        self.live_bytes = live_bytes
        self.times = Times(submitted)
        self.generation: Generation | None = None
        self.outcome: Completion | Exception | None = None
        self.is_given_up = False
        self._on_give_up = on_give_up
        self._events: list[TokenEvent] = []
        self._news = asyncio.Event()

    def hand(self, handed: Handed) -> None:
        """Take in what a turn produced."""
        self._events += handed.events
        if handed.events and self.times.first_token is None:
            self.times.first_token = handed.at
        if handed.outcome is not None:
            self.outcome, self.times.ended = handed.outcome, handed.at
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[Portion]:
        """Yield the answer as it comes: all that is there, as often as there is something.

        Raises:
            Exception: what broke the request.
        """
        while True:
            self._news.clear()
            if self._events:
                events, self._events = self._events, []
                yield _portion(events)
            if self.outcome is None:
                await self._news.wait()
            elif not self._events:
                self.completion_now()
                return

    async def completion(self) -> Completion:
        """Return the whole answer, once there is one.

        Raises:
            Exception: what broke the request.
        """
        while self.outcome is None:
            self._news.clear()
            await self._news.wait()
        return self.completion_now()

    def completion_now(self) -> Completion:
        """Return the whole answer of a request that is done; else raise what broke it."""
        assert self.outcome is not None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def give_up(self) -> None:
        """Say that nobody listens any more: what it holds is freed, what was captured of its prompt stays.
        Harmless when done.
        """
        if self.outcome is None and not self.is_given_up:
            self.is_given_up = True
            self._on_give_up(self)


def _portion(events: Sequence[TokenEvent]) -> Portion:
    text = "".join(event.text for event in events)
    return Portion(text, tuple(event.logprobs for event in events if event.logprobs is not None))
