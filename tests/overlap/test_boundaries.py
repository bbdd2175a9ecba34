"""Partings at message boundaries are learned by their place from the end, where they explain more."""

import numpy as np
import pytest

from milepost.errors import InvalidRequestError
from milepost.footprint import Footprint
from milepost.overlap import BoundaryModel
from milepost.policies import learned
from milepost.prefix_cache import PrefixCache


def test_the_last_boundary_but_one_is_told_from_the_last():
    model = BoundaryModel()
    for step in range(40):
        model.observe((100, 900 + step, 1000 + step), 905 + step, expected=0.01)
    shares = model.shares
    assert shares[1] > 0.8
    assert shares[0] < 0.05
    assert model.predict((50, 700, 800)) == [(50, shares[2]), (700, shares[1]), (800, shares[0])]


def test_what_is_expected_anyway_is_not_credited_to_a_boundary():
    surprising, expected = BoundaryModel(), BoundaryModel()
    for _ in range(20):
        surprising.observe((500,), 510, expected=0.01)
        expected.observe((500,), 510, expected=1.0)
    assert surprising.shares[0] > 0.8
    assert expected.shares[0] < 0.5 * surprising.shares[0]


def test_a_parting_far_behind_a_boundary_or_before_the_first_is_at_none():
    model = BoundaryModel(width=64)
    assert model.at((500,), 563) == 500
    assert model.at((500,), 564) is None
    assert model.at((500,), 499) is None


def test_many_early_boundaries_share_the_last_place():
    model = BoundaryModel()
    predicted = model.predict(tuple(range(100, 2100, 100)))
    assert len(predicted) == 20
    assert sum(chance for _, chance in predicted) == pytest.approx(sum(model.shares))


class State:
    num_bytes = 1000


class Source:
    def checkpoint(self, position):
        return State()

    def kv_segments(self, start, end):
        return (None,) * ((end - start) // 16)


def reused(*, hints: bool) -> float:
    """Documents of any length, with notes of any length behind them: only the client knows where one ends."""
    cache = PrefixCache(
        capacity_bytes=60_000,
        footprint=Footprint(checkpoint_bytes=1000, kv_bytes_per_token=1),
        policy=learned(),
        grid=16,
    )
    rng = np.random.default_rng(5)
    for _ in range(60):
        document = rng.integers(0, 1 << 20, int(rng.integers(600, 6000)))
        for _ in range(2):
            notes = rng.integers(0, 1 << 20, int(rng.integers(100, 4000)))
            prompt = np.concatenate((document, notes))
            with cache.acquire(prompt, breakpoints=(document.size,) if hints else ()) as lease:
                cache.commit(lease, cache.plan(lease), Source())
    cache.check()
    return cache.statistics().reused_fraction


def test_breakpoints_of_the_client_are_used_where_nothing_else_tells():
    assert reused(hints=True) > 1.05 * reused(hints=False)


def test_a_breakpoint_outside_the_prompt_is_refused():
    cache = PrefixCache(
        capacity_bytes=60_000,
        footprint=Footprint(checkpoint_bytes=1000, kv_bytes_per_token=1),
        policy=learned(),
        grid=16,
    )
    for position in (0, 101):
        with pytest.raises(InvalidRequestError, match=f"breakpoint at {position}"):
            cache.acquire(list(range(100)), breakpoints=(position,))
