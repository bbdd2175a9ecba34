"""The thread that owns the engine: what it does between taking requests in and handing answers out.

Each round: take in who comes and who goes, do what was asked for between turns, let run what fits, step, and
tell what that produced. Two threads share one interpreter, and to tell of a token costs as much of it as to
compute one in a small model. So what comes within an interval is told at once, but for first tokens and ends,
for which somebody waits. Whatever breaks the engine itself ends the thread, and everybody is told.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, final

from milepost.engines.completion import Completion
from milepost.engines.engine import Engine
from milepost.server.admission import Admission
from milepost.server.faults import StoppedError
from milepost.server.ticket import Handed, Ticket

__all__ = ["EngineThread"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


@final
class EngineThread:
    """See the module.

    Args:
        engine: Its own from now on; closed at the end.
        admission: The rule of the queue.
        stream_interval_seconds: Least time between two tellings of what goes on.
        on_begun: Told of a ticket that waits no more, and when. Called here, as the others are.
        on_news: Told of what a turn produced.
        on_broken: Told why the engine serves no more.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        admission: Admission,
        stream_interval_seconds: float,
        on_begun: Callable[[Ticket, float], None],
        on_news: Callable[[Sequence[Handed]], None],
        on_broken: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._interval_seconds = stream_interval_seconds
        self._on_begun, self._on_news, self._on_broken = on_begun, on_news, on_broken
        self._thread = threading.Thread(target=self._work, name="milepost-engine", daemon=True)
        # The meeting place with other threads.
        self._wake = threading.Condition()
        self._inbox: deque[Ticket] = deque()
        self._jobs: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._is_closing = self._has_ended = False
        # This thread's own.
        self._waiting: deque[Ticket] = deque()
        self._running: list[Ticket] = []
        # Those of whom no token was told yet.
        self._silent: set[Ticket] = set()
        self._untold: list[Handed] = []
        self._told_at = float("-inf")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what runs, and return once the thread has ended; what was captured is kept."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()

    def put(self, tickets: Sequence[Ticket]) -> None:
        """Queue requests."""
        with self._wake:
            self._inbox.extend(tickets)
            self._wake.notify()

    def call(self, work: Callable[[Engine], T]) -> "Future[T]":
        """Have ``work`` done with the engine, between two turns."""
        done: Future[T] = Future()
        with self._wake:
            if self._has_ended:
                done.set_exception(StoppedError("the engine was closed"))
            else:
                self._jobs.append((work, done))
                self._wake.notify()
        return done

    def look(self) -> None:
        """See who was given up."""
        with self._wake:
            self._wake.notify()

    def _work(self) -> None:
        try:
            while self._take_in():
                self._admit()
                self._turn()
        except BaseException as error:
            _log.exception("the engine's thread ended, and the server serves no more")
            self._on_broken(f"the engine failed: {error}")
            reason = error if isinstance(error, Exception) else StoppedError("the engine was interrupted")
            self._fail_all(reason)
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
        if jobs or is_closing:
            self._tell()
        for work, done in jobs:
            _answer(work, self._engine, done)
        if is_closing:
            self._fail_all(StoppedError("the server was stopped before this answer was whole"))
        return not is_closing

    def _admit(self) -> None:
        """Let run what fits, in the order of coming; who left while waiting is not waited for."""
        for ticket in [each for each in self._waiting if each.is_given_up]:
            self._waiting.remove(ticket)
            self._on_begun(ticket, time.monotonic())
        while self._waiting:
            taken = (each.live_bytes for each in self._running)
            if not self._admission.has_room(taken, self._waiting[0].live_bytes):
                return
            self._begin(self._waiting.popleft())

    def _begin(self, ticket: Ticket) -> None:
        # The next turns compute its prompt, and take longer.
        self._tell()
        try:
            ticket.generation = self._engine.submit(ticket.request)
            self._running.append(ticket)
            self._silent.add(ticket)
        except Exception as error:
            self._on_news([Handed(ticket=ticket, events=(), at=time.monotonic(), outcome=error)])
        self._on_begun(ticket, time.monotonic())

    def _turn(self) -> None:
        for ticket in self._running:
            if ticket.is_given_up and ticket.generation is not None:
                ticket.generation.close()
        if not self._running:
            return
        turn = self._engine.step()
        now = time.monotonic()
        events = {id(generation): produced for generation, produced in turn}
        is_awaited = False
        for ticket in list(self._running):
            generation = ticket.generation
            assert generation is not None
            is_done = generation.is_done
            if is_done:
                self._running.remove(ticket)
            if is_done or events.get(id(generation)):
                outcome = _outcome(ticket) if is_done else None
                produced = tuple(events.get(id(generation), ()))
                self._untold.append(Handed(ticket=ticket, events=produced, at=now, outcome=outcome))
                is_awaited |= is_done or ticket in self._silent
                self._silent.discard(ticket)
        if is_awaited or now - self._told_at >= self._interval_seconds:
            self._tell()

    def _tell(self) -> None:
        if self._untold:
            told, self._untold = self._untold, []
            self._told_at = time.monotonic()
            self._on_news(told)

    def _fail_all(self, reason: Exception) -> None:
        with self._wake:
            tickets = [*self._running, *self._waiting, *self._inbox]
            jobs, self._jobs = self._jobs, deque()
            self._running.clear()
            self._waiting.clear()
            self._inbox.clear()
            self._has_ended = True
        now = time.monotonic()
        self._untold += [Handed(ticket=ticket, events=(), at=now, outcome=reason) for ticket in tickets]
        self._tell()
        for _, done in jobs:
            done.set_exception(reason)


def _outcome(ticket: Ticket) -> Completion | Exception:
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
