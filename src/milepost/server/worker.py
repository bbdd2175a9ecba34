"""The queue before the engine, on the event loop's side: it owns tickets, and the count of who waits.

    submit         read in a thread of its own, refused where it breaks a rule or the queue is full
    engine thread  runs it in turns with the others (:mod:`milepost.server.engine_thread`)
    hand out       once a turn, what that produced, to the tickets and to who listens

The two meet in an inbox under a lock, and in ``call_soon_threadsafe``. Everything else that the engine can do
(scores, statistics, a look at the cache) runs between two turns, by :meth:`Worker.call`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, final

from milepost.engines.engine import Engine
from milepost.engines.requests import GenerationRequest
from milepost.engines.text import Tokenizer
from milepost.errors import ConfigurationError
from milepost.server.admission import Admission
from milepost.server.engine_thread import EngineThread
from milepost.server.faults import BusyError, StoppedError
from milepost.server.requests import Ask
from milepost.server.ticket import Handed, Ticket

__all__ = ["Listener", "Worker"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Where nothing is known yet of how long a request takes, and the least and most that a client is told.
_FIRST_GUESS_SECONDS, _LEAST_RETRY_SECONDS, _MOST_RETRY_SECONDS = 5.0, 1, 60
# How much the newest request counts in the mean of how long one takes.
_NEWEST_WEIGHT = 0.2


class Listener(Protocol):
    """Told, in the event loop, of what becomes of requests."""

    def submitted(self, ticket: Ticket) -> None:
        """It was read, and waits."""

    def handed(self, handed: Handed) -> None:
        """It produced tokens, or its end: ``handed.ticket`` has taken them in."""

    def given_up(self, ticket: Ticket) -> None:
        """Its client went away."""


@final
class Worker:
    """See the module.

    Args:
        engine: Its own from now on.
        admission: The rule of the queue.
        stream_interval_seconds: See :class:`EngineThread`.

    Raises:
        ConfigurationError: the model has no tokenizer, and clients write text.

    Attributes:
        num_waiting: Requests that were read and are not begun.
        num_running: Requests that the engine works on.
        stopped: Why nothing is served; None while it is.
    """

    def __init__(self, engine: Engine, *, admission: Admission, stream_interval_seconds: float = 0.0) -> None:
        if engine.tokenizer is None:
            raise ConfigurationError("the model has no tokenizer, and clients write text; add one beside it")
        self.admission = admission
        self.num_waiting = 0
        self.num_running = 0
        self.stopped: str | None = "the server has not started yet"
        self._engine = engine
        self._listeners: list[Listener] = []
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="milepost-reader")
        self._request_seconds = _FIRST_GUESS_SECONDS
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = EngineThread(
            engine,
            admission=admission,
            stream_interval_seconds=stream_interval_seconds,
            on_begun=lambda ticket, at: self._tell(self._note_begun, ticket, at),
            on_news=lambda news: self._tell(self._hand_out, news),
            on_broken=lambda reason: self._tell(self._note_broken, reason),
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's, to decode with."""
        assert self._engine.tokenizer is not None
        return self._engine.tokenizer

    @property
    def context_length(self) -> int | None:
        """Most tokens of a prompt with its answer; None for any number."""
        return self._engine.driver.context_length

    def listen(self, listener: Listener) -> None:
        """Have ``listener`` told of everything."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self.stopped = None
        self._thread.start()

    async def stop(self) -> None:
        """Refuse what comes, give up what runs, and end the thread; what was captured is kept."""
        self.stopped = self.stopped or "the server is being stopped"
        await asyncio.to_thread(self._thread.stop)
        self._reader.shutdown(cancel_futures=True)

    async def submit(self, ask: Ask) -> list[Ticket]:
        """Read a request and queue it, as many times as answers are wanted.

        Raises:
            InvalidRequestError: it breaks a rule.
            RefusedError: the queue is full, it can never run here, or nothing is served.
        """
        self._require_room(ask.count)
        assert self._loop is not None
        requests = await self._loop.run_in_executor(self._reader, self._read, ask)
        # Others came while it was read.
        self._require_room(ask.count)
        tickets = [
            Ticket(
                request,
                request_id=ask.request_id,
                live_bytes=self.admission.live_bytes(request),
                submitted=time.monotonic(),
                on_give_up=self._give_up,
            )
            for request in requests
        ]
        self.num_waiting += len(tickets)
        for ticket in tickets:
            for listener in self._listeners:
                listener.submitted(ticket)
        self._thread.put(tickets)
        return tickets

    async def call(self, work: Callable[[Engine], T]) -> T:
        """Return what ``work`` does with the engine, between two turns.

        Raises:
            Exception: what it raises.
        """
        if self.stopped is not None:
            raise StoppedError(self.stopped)
        return await asyncio.wrap_future(self._thread.call(work))

    async def read(self, work: Callable[[Engine], T]) -> T:
        """Return what ``work`` does in the thread that reads requests: encoding, which needs no turn."""
        assert self._loop is not None
        return await self._loop.run_in_executor(self._reader, work, self._engine)

    def _require_room(self, count: int) -> None:
        if self.stopped is not None:
            raise StoppedError(self.stopped)
        # What can run at once does not wait.
        idle = max(0, self.admission.max_running - self.num_running)
        if self.num_waiting + count > self.admission.max_waiting + idle:
            seconds = self._request_seconds * (self.num_waiting + 1) / self.admission.max_running
            bounded = min(max(round(seconds), _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)
            raise BusyError(num_waiting=self.num_waiting, retry_after_seconds=bounded)

    def _read(self, ask: Ask) -> list[GenerationRequest]:
        first = self._engine.read(ask.prompt, **ask.options)
        others = {
            name: value
            for name, value in ask.options.items()
            if name not in ("tools", "chat_template_kwargs", "continue_final_message")
        }
        others["breakpoints"] = first.breakpoints
        seed = ask.options.get("seed") or 0
        return [first] + [
            self._engine.read(first.tokens, **(others | {"seed": seed + number}))
            for number in range(1, ask.count)
        ]

    def _give_up(self, ticket: Ticket) -> None:
        for listener in self._listeners:
            listener.given_up(ticket)
        self._thread.look()

    def _tell(self, what: Callable[..., None], *values: Any) -> None:
        """Have the event loop do ``what``; called in the engine's thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *values)
        except RuntimeError:
            # The loop is closed: nobody is left to tell.
            _log.debug("an answer found nobody who waits for it")

    def _note_broken(self, reason: str) -> None:
        self.stopped = reason

    def _note_begun(self, ticket: Ticket, at: float) -> None:
        ticket.times.begun = at
        self.num_waiting -= 1
        # One that was given up, or refused, while it waited does not run.
        if ticket.generation is not None:
            self.num_running += 1

    def _hand_out(self, news: Sequence[Handed]) -> None:
        for handed in news:
            ticket = handed.ticket
            ticket.hand(handed)
            if handed.outcome is not None:
                self._note_ended(ticket)
            for listener in self._listeners:
                listener.handed(handed)

    def _note_ended(self, ticket: Ticket) -> None:
        if ticket.times.begun is None or ticket.generation is None:
            return
        self.num_running -= 1
        assert ticket.times.ended is not None
        took = ticket.times.ended - ticket.times.begun
        self._request_seconds += _NEWEST_WEIGHT * (took - self._request_seconds)
