"""Turns: first come, first admitted, one step each, round and round."""

import pytest

from milepost.engines.base import OneByOne
from milepost.engines.scheduler import Scheduler
from milepost.errors import ConfigurationError


class Alone:
    """Requests that have nothing in common."""

    def prepare(self, generation, others):
        """Nothing to prepare for."""

    def waits(self, generation, running):
        return False


class Countdown:
    """A request that takes some number of turns, or fails at its last."""

    def __init__(self, name, turns, *, fails=False):
        self.name, self.turns, self.fails = name, turns, fails
        self.is_closed = self.is_abandoned = False
        self.is_decoding = False
        self.has_begun = False
        self.pending = (None, 0)
        self.must_start_over = False

    @property
    def is_done(self):
        return self.is_closed or self.is_abandoned or self.turns == 0

    def step(self):
        self.has_begun = True
        if self.turns == 1 and self.fails:
            self.close()
            return []
        self.turns -= 1
        return [self.name]

    def close(self):
        self.is_closed = True


def order(scheduler) -> str:
    names = ""
    while turn := scheduler.step():
        names += "".join(request.name for request, _ in turn)
    return names


def queue(*requests, max_running=8) -> Scheduler:
    scheduler = Scheduler(OneByOne(None), sharing=Alone(), max_running=max_running)
    for request in requests:
        scheduler.submit(request)
    return scheduler


def test_requests_take_turns_in_the_order_they_came():
    assert order(queue(Countdown("a", 3), Countdown("b", 1), Countdown("c", 2))) == "abcaca"


def test_one_that_waits_is_admitted_as_soon_as_another_is_done():
    requests = Countdown("a", 2), Countdown("b", 3), Countdown("c", 1), Countdown("d", 1)
    assert order(queue(*requests, max_running=2)) == "ababcbd"


def test_no_more_than_max_running_are_begun_at_once():
    requests = [Countdown(name, 3) for name in "abcdef"]
    scheduler = queue(*requests, max_running=2)
    begun = []
    while scheduler.step():
        begun.append(sum(0 < request.turns < 3 for request in requests))
    assert len(begun) == 18
    assert max(begun) == 2


def test_one_that_comes_later_joins_the_round():
    scheduler = queue(Countdown("a", 3))
    assert scheduler.step()[0][0].name == "a"
    scheduler.submit(Countdown("b", 2))
    assert order(scheduler) == "abab"


def test_one_that_fails_is_dropped_and_the_others_go_on():
    assert order(queue(Countdown("a", 2), Countdown("b", 1, fails=True), Countdown("c", 2))) == "abcac"


def test_what_was_abandoned_is_closed_before_the_next_turn_wherever_it_stands():
    one, other, third = requests = [Countdown(name, 3) for name in "abc"]
    scheduler = queue(*requests)
    scheduler.step()
    one.is_abandoned = third.is_abandoned = True
    assert scheduler.step()[0][0] is other
    assert one.is_closed
    assert third.is_closed
    assert order(scheduler) == "bb"


def test_an_interrupt_in_a_turn_leaves_the_request_where_closing_finds_it():
    class Interrupted(Countdown):
        def step(self):
            raise KeyboardInterrupt

    request = Interrupted("a", 2)
    scheduler = queue(request)
    with pytest.raises(KeyboardInterrupt):
        scheduler.step()
    scheduler.close()
    assert request.is_closed


def test_requests_given_up_while_waiting_cost_no_turn_however_many():
    requests = [Countdown("x", 1) for _ in range(5000)]
    scheduler = queue(*requests, Countdown("a", 1), max_running=1)
    for request in requests:
        request.close()
    assert order(scheduler) == "a"


def test_closing_gives_up_running_and_waiting_alike():
    requests = [Countdown(name, 3) for name in "abc"]
    scheduler = queue(*requests, max_running=1)
    scheduler.step()
    scheduler.close()
    assert all(request.is_closed for request in requests)
    assert not scheduler.step()


def test_a_scheduler_that_may_run_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="max_running=0"):
        queue(max_running=0)
