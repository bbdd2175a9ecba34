"""A hundred steps of training go as they did when the model was made."""

import json
from dataclasses import replace

from training.curve import CURVE, PLAN, answer_losses

# What the rounding of another processor may do to the mean of ten steps; another rate does much more.
TOLERANCE = 0.1


def distance(found: list[float]) -> float:
    wanted = json.loads(CURVE.read_text())[: len(found)]
    return max(abs(one - other) / other for one, other in zip(found, wanted, strict=True))


def test_the_losses_fall_as_they_did():
    found = answer_losses()
    assert len(found) == 10
    assert distance(found) < TOLERANCE
    assert found[-1] < 0.3 * found[0]


def test_another_rate_shows_within_twenty_steps():
    slower = replace(PLAN, learning_rate=PLAN.learning_rate / 2, num_steps=20, decay_steps=1)
    assert distance(answer_losses(slower)) > 2 * TOLERANCE
