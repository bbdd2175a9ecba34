"""How fast a tier is follows what was measured lately, and is doubted where it keeps it from being tried."""

import pytest

from milepost.tiers import Speed


def test_what_was_never_measured_takes_no_time():
    speed = Speed()
    assert not speed.is_known
    assert speed.seconds_for(1e9) == speed.amount_in(5.0) == 0.0


def test_the_latest_measurements_count_most():
    speed = Speed()
    speed.note(100.0, 1.0)
    assert speed.seconds_for(50.0) == 0.5
    for _ in range(50):
        speed.note(100.0, 10.0)
    assert speed.seconds_for(100.0) == pytest.approx(10.0, rel=0.01)
    assert speed.amount_in(10.0) == pytest.approx(100.0, rel=0.01)


def test_a_measurement_of_nothing_says_nothing():
    speed = Speed()
    speed.note(0.0, 1.0)
    speed.note(1.0, 0.0)
    assert not speed.is_known


def test_doubt_makes_it_seem_faster():
    speed = Speed()
    speed.note(1.0, 100.0)
    for _ in range(100):
        speed.doubt()
    assert 0.0 < speed.seconds_for(1.0) < 1.0
