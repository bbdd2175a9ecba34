"""When what the engine produced is told: soon where somebody waits for it, together where it goes on."""

import queue
import time
from contextlib import contextmanager

import pytest

from engines.fake_driver import fake_engine
from milepost.server.admission import Admission
from milepost.server.engine_thread import EngineThread
from milepost.server.ticket import Ticket

NEVER = 3600.0
NUM_TOKENS = 12


class Told:
    """What an engine's thread tells, telling by telling."""

    def __init__(self, thread, engine, tellings):
        self._thread, self._engine, self._tellings = thread, engine, tellings

    def put(self, *prompts, num_tokens=NUM_TOKENS):
        requests = [self._engine.read(prompt, max_new_tokens=num_tokens) for prompt in prompts]
        tickets = [
            Ticket(each, request_id=str(index), live_bytes=1, submitted=0.0, on_give_up=lambda ticket: None)
            for index, each in enumerate(requests)
        ]
        self._thread.put(tickets)
        return tickets

    def call(self, work):
        return self._thread.call(work).result(timeout=60)

    def until_all_ended(self, tickets):
        """Each telling as the numbers of tokens that it told of each ticket."""
        found, open_tickets = [], set(tickets)
        while open_tickets:
            news = self._tellings.get(timeout=60)
            found.append([sum(len(each.events) for each in news if each.ticket is one) for one in tickets])
            open_tickets -= {each.ticket for each in news if each.outcome is not None}
        return found


@contextmanager
def telling(*, every_seconds):
    engine, tellings = fake_engine(), queue.Queue()
    thread = EngineThread(
        engine,
        admission=Admission(
            footprint=engine.footprint, max_running=8, max_waiting=8, live_capacity_bytes=1 << 30
        ),
        stream_interval_seconds=every_seconds,
        on_begun=lambda ticket, at: None,
        on_news=tellings.put,
        on_broken=tellings.put,
    )
    thread.start()
    try:
        yield Told(thread, engine, tellings)
    finally:
        thread.stop()


def test_each_token_is_told_by_itself_without_an_interval():
    with telling(every_seconds=0.0) as told:
        assert told.until_all_ended(told.put(range(20))) == [[1]] * NUM_TOKENS


def test_the_first_token_and_the_end_are_told_at_once_and_the_rest_together():
    with telling(every_seconds=NEVER) as told:
        assert told.until_all_ended(told.put(range(20))) == [[1], [NUM_TOKENS - 1]]


def test_nothing_is_lost_or_told_twice_where_several_run():
    with telling(every_seconds=NEVER) as told:
        short, long = told.put(range(20), num_tokens=4)[0], told.put(range(30, 60), num_tokens=9)[0]
        found = told.until_all_ended([short, long])
        assert [sum(column) for column in zip(*found, strict=True)] == [4, 9]
        assert len(found) < 9


def test_what_was_made_is_told_before_work_that_may_take_long():
    with telling(every_seconds=NEVER) as told:
        (ticket,) = told.put(range(20), num_tokens=4000)
        while ticket.generation is None or not ticket.generation.is_decoding:
            time.sleep(0.001)
        told.call(lambda engine: None)
        tellings = told.until_all_ended([ticket])
        assert len(tellings) >= 3
        assert sum(count for (count,) in tellings) == 4000


@pytest.mark.parametrize("every_seconds", [0.0, NEVER])
def test_a_thread_that_is_stopped_tells_what_it_made(every_seconds):
    with telling(every_seconds=every_seconds) as told:
        (ticket,) = told.put(range(20), num_tokens=100_000)
        while ticket.generation is None or not ticket.generation.is_decoding:
            time.sleep(0.001)
    made = told.until_all_ended([ticket])
    assert sum(count for (count,) in made) == len(ticket.generation._answer.tokens)
