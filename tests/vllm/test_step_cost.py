"""What a stop costs is learned from the steps themselves, with a clock that the test moves."""

from random import Random

import pytest

from milepost.vllm.step_cost import StepCost


class Machine:
    """Steps that take a fixed time and a time for each prompt token; one in ten is disturbed."""

    def __init__(self, *, fixed=0.010, per_token=0.0001, ahead=0, seed=0):
        self.now = 0.0
        self.cost = StepCost(clock=lambda: self.now)
        self.fixed, self.per_token, self.ahead = fixed, per_token, ahead
        self.random = Random(seed)
        self.waiting = []

    def run(self, num_prefill_tokens, *, scheduling_seconds=0.0):
        self.now += scheduling_seconds
        self.cost.note_schedule(num_prefill_tokens)
        self.waiting.append(num_prefill_tokens)
        while len(self.waiting) > self.ahead:
            self.finish()

    def finish(self):
        num_tokens = self.waiting.pop(0)
        self.now += self.fixed + self.per_token * num_tokens
        self.now += self.random.choice([0.0] * 9 + [0.5])
        self.cost.note_output()

    def serve(self, num_requests):
        for _ in range(num_requests):
            self.run(self.random.randrange(200, 2000))
            for _ in range(8):
                self.run(0)
        while self.waiting:
            self.finish()


@pytest.mark.parametrize("ahead", [0, 1], ids=["sync", "async"])
def test_a_stop_costs_the_tokens_that_a_step_without_any_could_have_computed(ahead):
    machine = Machine(fixed=0.010, per_token=0.0001, ahead=ahead)
    machine.serve(30)
    assert machine.cost.stop_tokens == pytest.approx(100, rel=0.05)


def test_it_is_learned_where_no_step_only_decodes():
    machine = Machine(fixed=0.010, per_token=0.0001)
    for _ in range(40):
        machine.run(machine.random.randrange(100, 600))
    assert machine.cost.stop_tokens == pytest.approx(100, rel=0.1)


def test_steps_of_one_length_tell_nothing():
    machine = Machine()
    for _ in range(40):
        machine.run(512)
    assert machine.cost.stop_tokens == 256


def test_long_steps_whose_tokens_take_longer_do_not_make_stops_free():
    machine = Machine(fixed=0.0)
    for number in range(40):
        num_tokens = 100 + 40 * (number % 10)
        machine.per_token = 0.0001 * num_tokens
        machine.run(num_tokens)
    assert machine.cost.stop_tokens == 16


def test_waiting_for_requests_is_not_taken_for_work():
    machine = Machine()
    for _ in range(20):
        machine.serve(1)
        machine.now += 60.0
    assert machine.cost.stop_tokens == pytest.approx(100, rel=0.05)


def test_the_latest_steps_count():
    machine = Machine(fixed=0.010)
    machine.serve(30)
    machine.fixed = 0.040
    machine.serve(100)
    assert machine.cost.stop_tokens == pytest.approx(400, rel=0.05)


def test_short_prefills_which_have_a_cost_of_their_own_tell_little():
    machine = Machine(fixed=0.010, per_token=0.0001)
    for _ in range(30):
        machine.cost.note_schedule(40)
        machine.now += machine.fixed + 40 * 0.001
        machine.cost.note_output()
        machine.run(1500)
        machine.run(0)
    assert machine.cost.stop_tokens == pytest.approx(100, rel=0.05)


def test_before_anything_is_known_a_stop_is_dear_and_what_was_not_measured_has_a_bound():
    assert StepCost().stop_tokens == 256
    machine = Machine(per_token=0.0)
    machine.serve(30)
    assert machine.cost.stop_tokens == 4096


def test_an_output_that_nobody_scheduled_is_left_out():
    cost = StepCost()
    cost.note_output()
    assert cost.stop_tokens == 256


def test_steps_that_come_in_wait_for_no_fit(monkeypatch):
    machine = Machine(fixed=0.010, per_token=0.0001)
    fitted = []
    fit = StepCost._fit
    monkeypatch.setattr(StepCost, "_fit", lambda self: fitted.append(self) or fit(self))
    machine.serve(30)
    assert fitted == []
    machine.cost.settle()
    machine.cost.settle()
    assert len(fitted) == 1
    assert machine.cost.stop_tokens == pytest.approx(100, rel=0.05)
