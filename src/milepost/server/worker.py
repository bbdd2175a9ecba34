"""The one thread that owns the engine, and the queue before it.

    client   submit: read in a thread of its own, refused where it breaks a rule or the queue is full
             → waiting, first come first served
    engine   each turn: take in who comes and who goes, let run what fits, step, hand out what that produced

The event loop owns tickets and the count of who waits; the engine's thread owns the engine. They meet in an
inbox under a lock, and in ``call_soon_threadsafe``, once a turn. Everything else that the engine can do
(scores, statistics, a look at the cache) runs between two turns, by :meth:`Worker.call`.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, final

from milepost.engines.engine import Engine
from milepost.engines.requests import GenerationRequest
from milepost.engines.text import Tokenizer
from milepost.errors import ConfigurationError
from milepost.server.admission import Admission
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

    Raises:
        ConfigurationError: the model has no tokenizer, and clients write text.

    Attributes:
        num_waiting: Requests that were read and are not begun.
        num_running: Requests that the engine works on.
        stopped: Why nothing is served; None while it is.
    """

    def __init__(self, engine: Engine, *, admission: Admission) -> None:
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
        self._thread = threading.Thread(target=self._work, name="milepost-engine", daemon=True)
        # The meeting place.
        self._inbox: deque[Ticket] = deque()
        self._jobs: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._is_closing = False
        # The engine's thread's.
        self._waiting: deque[Ticket] = deque()
        self._running: list[Ticket] = []

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
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
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
        with self._wake:
            self._inbox.extend(tickets)
            self._wake.notify()
        return tickets

    async def call(self, work: Callable[[Engine], T]) -> T:
        """Return what ``work`` does with the engine, between two turns.

        Raises:
            Exception: what it raises.
        """
        if self.stopped is not None:
            raise StoppedError(self.stopped)
        done: Future[T] = Future()
        with self._wake:
            self._jobs.append((work, done))
            self._wake.notify()
        return await asyncio.wrap_future(done)

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
        with self._wake:
            self._wake.notify()

    # From here on, the engine's thread.

    def _work(self) -> None:
        try:
            while self._take_in():
                self._admit()
                self._turn()
        except BaseException as error:
            _log.exception("the engine's thread ended, and the server serves no more")
            self._fail_all(error)
        finally:
            self._engine.close()

    def _take_in(self) -> bool:
        """Wait until there is something to do; return whether to go on."""
        with self._wake:
            while not (self._inbox or self._jobs or self._waiting or self._running or self._is_closing):
                self._wake.wait()
            self._waiting.extend(self._inbox)
            self._inbox.clear()
            jobs, self._jobs = self._jobs, deque()
            is_closing = self._is_closing
        for work, done in jobs:
            _answer(work, self._engine, done)
        if is_closing:
            self._fail_all(StoppedError("the server was stopped before this answer was whole"))
        return not is_closing

    def _admit(self) -> None:
        """Let run what fits, in the order of coming."""
        while self._waiting:
            ticket = self._waiting[0]
            if not ticket.is_given_up and not self.admission.has_room(
                (each.live_bytes for each in self._running), ticket.live_bytes
            ):
                return
            self._waiting.popleft()
            self._begin(ticket)

    def _begin(self, ticket: Ticket) -> None:
        try:
            if not ticket.is_given_up:
                ticket.generation = self._engine.submit(ticket.request)
                self._running.append(ticket)
        except Exception as error:
            self._post([Handed(ticket=ticket, events=(), at=time.monotonic(), outcome=error)])
        self._tell(self._note_begun, ticket, time.monotonic())

    def _turn(self) -> None:
        for ticket in self._running:
            if ticket.is_given_up and ticket.generation is not None:
                ticket.generation.close()
        if not self._running:
            return
        turn = self._engine.step()
        now = time.monotonic()
        events = {id(generation): produced for generation, produced in turn}
        news: list[Handed] = []
        for ticket in list(self._running):
            generation = ticket.generation
            assert generation is not None
            is_done = generation.is_done
            if is_done:
                self._running.remove(ticket)
            if is_done or events.get(id(generation)):
                outcome = _outcome(ticket) if is_done else None
                produced = tuple(events.get(id(generation), ()))
                news.append(Handed(ticket=ticket, events=produced, at=now, outcome=outcome))
        if news:
            self._post(news)

    def _fail_all(self, error: BaseException) -> None:
        reason = error if isinstance(error, Exception) else StoppedError("the engine was interrupted")
        self.stopped = self.stopped or f"the engine failed: {error}"
        with self._wake:
            tickets = [*self._running, *self._waiting, *self._inbox]
            jobs, self._jobs = self._jobs, deque()
            self._running.clear()
            self._waiting.clear()
            self._inbox.clear()
        now = time.monotonic()
        self._post([Handed(ticket=ticket, events=(), at=now, outcome=reason) for ticket in tickets])
        for _, done in jobs:
            done.set_exception(reason)

    def _post(self, news: Sequence[Handed]) -> None:
        self._tell(self._hand_out, news)

    def _tell(self, what: Callable[..., None], *values: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *values)
        except RuntimeError:
            # The loop is closed: nobody is left to tell.
            _log.debug("an answer found nobody who waits for it")

    # From here on, the event loop again.

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


def _outcome(ticket: Ticket) -> Any:
    """Return the whole answer of a request that is done, or what broke it."""
    generation = ticket.generation
    assert generation is not None
    if generation.is_closed and generation.error is None:
        return StoppedError("the request was given up")
    try:
        return generation.completion()
    except Exception as error:
        return error


def _answer(work: Callable[[Engine], Any], engine: Engine, done: "Future[Any]") -> None:
    """Do what was asked for between turns."""
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(work(engine))
    except BaseException as error:
        done.set_exception(error)
        # What is no error of the work ends the thread.
        if not isinstance(error, Exception):
            raise
