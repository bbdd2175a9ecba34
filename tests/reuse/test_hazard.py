"""The hazard table against a recount from the log of what happened, and its index against its definition."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from milepost.reuse import NUM_AGE_BINS, HazardTable, Tracked
from milepost.reuse.hazard import PRIOR_USES, _solve_indices

# The first solution of a process compiles or loads its kernel.
compiles_first = settings(deadline=None, derandomize=True)

# Uses are counted at an age's own bin, exposure at that of the age before.

KIND_PRIORS = (1.0, 0.3)
ROWS, COLUMNS = 2, 2
NUM_CLASSES = len(KIND_PRIORS) * ROWS * COLUMNS
NUM_THINGS = 4


def age_bin(age: int) -> int:
    return min(max(age, 1).bit_length() - 1, NUM_AGE_BINS - 1)


@dataclass
class NaiveTable:
    """Looks at every tracked thing in every request."""

    now: int = 0
    used_at: dict[int, int] = field(default_factory=dict)
    class_of: dict[int, int] = field(default_factory=dict)
    uses: np.ndarray = field(default_factory=lambda: np.zeros((NUM_CLASSES, NUM_AGE_BINS)))
    exposure: np.ndarray = field(default_factory=lambda: np.zeros((NUM_CLASSES, NUM_AGE_BINS)))

    def bin_of(self, thing: int) -> int:
        return age_bin(self.now - self.used_at[thing])

    def advance(self) -> set[int]:
        before = {thing: self.bin_of(thing) for thing in self.class_of}
        self.now += 1
        for thing, its_class in self.class_of.items():
            self.exposure[its_class, self.bin_of(thing)] += 1
        return {thing for thing in before if self.bin_of(thing) != before[thing]}

    def track(self, thing: int, its_class: int) -> None:
        self.used_at[thing], self.class_of[thing] = self.now, its_class

    def note_use(self, thing: int) -> None:
        if thing in self.class_of:
            self.uses[self.class_of[thing], self.bin_of(thing)] += 1

    def reclassify(self, thing: int, its_class: int) -> None:
        if thing in self.class_of:
            self.class_of[thing] = its_class

    def release(self, thing: int) -> None:
        self.class_of.pop(thing, None)

    def hazards(self) -> np.ndarray:
        """The estimate as the module words it, one number at a time."""
        hazards = np.empty((NUM_CLASSES, NUM_AGE_BINS))
        for kind, kind_prior in enumerate(KIND_PRIORS):
            of_kind = range(kind * ROWS * COLUMNS, (kind + 1) * ROWS * COLUMNS)
            by_age = [
                (sum(self.uses[c, b] for c in of_kind) + kind_prior)
                / (sum(self.exposure[c, b] for c in of_kind) + 1.0 / (0.2 * 0.5**b))
                for b in range(NUM_AGE_BINS)
            ]
            for row in range(ROWS):
                of_row = range(of_kind[row * COLUMNS], of_kind[row * COLUMNS] + COLUMNS)
                scaled = self._scaled(of_row, by_age)
                by_row = [
                    (sum(self.uses[c, b] for c in of_row) + PRIOR_USES)
                    / (sum(self.exposure[c, b] for c in of_row) + PRIOR_USES / scaled[b])
                    for b in range(NUM_AGE_BINS)
                ]
                for its_class in of_row:
                    hazards[its_class] = self._scaled([its_class], by_row)
        return hazards

    def _scaled(self, classes, hazards) -> list[float]:
        used = sum(self.uses[c, b] for c in classes for b in range(NUM_AGE_BINS))
        expected = sum(self.exposure[c, b] * hazards[b] for c in classes for b in range(NUM_AGE_BINS))
        return [(used + 2 * PRIOR_USES) / (expected + 2 * PRIOR_USES) * hazard for hazard in hazards]


def index_by_definition(hazards) -> list[float]:
    """For each bin to start from, the best ratio over every bin to stop after."""
    found = []
    for first in range(len(hazards)):
        ratios = []
        for stop in range(first, len(hazards)):
            risk_before, held = 0.0, 0.0
            for b in range(first, stop + 1):
                # Of those left, each is held until its use, or to the end of the bin.
                held += math.exp(-risk_before) * -math.expm1(-hazards[b] * 2**b) / hazards[b]
                risk_before += hazards[b] * 2**b
            ratios.append(-math.expm1(-risk_before) / held)
        found.append(max(ratios))
    return found


def indices_of(hazards) -> np.ndarray:
    hazards = np.atleast_2d(np.asarray(hazards, float))
    index = np.empty_like(hazards)
    _solve_indices(hazards, index)
    return index


def new_table() -> HazardTable:
    return HazardTable(kind_priors=KIND_PRIORS, rows=ROWS, columns=COLUMNS)


things = st.integers(0, NUM_THINGS - 1)
classes = st.integers(0, NUM_CLASSES - 1)
events = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(1, 20)),
        st.tuples(st.just("track"), things, classes),
        st.tuples(st.just("note_use"), things),
        st.tuples(st.just("reclassify"), things, classes),
        st.tuples(st.just("release"), things),
    ),
    max_size=25,
)


@settings(compiles_first, max_examples=40)
@given(events)
@example([("track", 0, 0), ("advance", 2), ("note_use", 0), ("track", 0, 0), ("advance", 5)])
@example([("track", 0, 1), ("track", 0, 2), ("advance", 9)])
@example([("track", 0, 1), ("advance", 1), ("release", 0), ("track", 0, 1), ("advance", 9)])
def test_indices_are_those_of_a_recount_of_all_that_happened(sequence):
    table, naive = new_table(), NaiveTable()
    watched = [Tracked() for _ in range(NUM_THINGS)]
    names = {id(thing): name for name, thing in enumerate(watched)}
    for event, *arguments in [*sequence, ("advance", 64)]:
        if event == "advance":
            for _ in range(arguments[0]):
                assert {names[id(thing)] for thing in table.advance()} == naive.advance()
                if table.solve_if_due():
                    expected = [index_by_definition(hazards) for hazards in naive.hazards()]
                    np.testing.assert_allclose(table.index, expected, rtol=1e-9)
        else:
            thing, *rest = arguments
            getattr(table, event)(watched[thing], *rest)
            getattr(naive, event)(thing, *rest)
        for name, thing in enumerate(watched):
            assert thing.is_tracked == (name in naive.class_of)
            if thing.is_tracked:
                assert (thing.hazard_class, thing.age_bin) == (naive.class_of[name], naive.bin_of(name))


@compiles_first
@given(events)
def test_the_same_events_give_the_same_indices_to_the_last_bit(sequence):
    results = []
    for _ in range(2):
        table, watched = new_table(), [Tracked() for _ in range(NUM_THINGS)]
        for event, *arguments in [*sequence, ("advance", 64)]:
            if event == "advance":
                for _ in range(arguments[0]):
                    list(table.advance())
                    table.solve_if_due()
            else:
                getattr(table, event)(watched[arguments[0]], *arguments[1:])
        results.append(table.index.tobytes())
    assert results[0] == results[1]


@compiles_first
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=NUM_AGE_BINS))
def test_the_index_is_the_best_ratio_over_all_bins_to_stop_after(hazards):
    np.testing.assert_allclose(indices_of(hazards)[0], index_by_definition(hazards), rtol=1e-9)


@compiles_first
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=NUM_AGE_BINS))
def test_where_the_hazard_falls_it_is_its_own_index(hazards):
    falling = sorted(hazards, reverse=True)
    np.testing.assert_allclose(indices_of(falling)[0], falling, rtol=1e-9)


def test_where_the_hazard_rises_the_index_looks_ahead():
    rises = [1e-4, 1e-4, 1e-4, 0.1, 1e-4]
    index = indices_of(rises)[0]
    assert index[0] > 100 * rises[0], "worth holding for what comes in a few requests"
    assert index[0] < index[1] < index[2] < index[3], "more so the nearer it is"
    assert index[3] == pytest.approx(0.1)
    assert index[4] == pytest.approx(1e-4), "past it, nothing is left to wait for"


def ask_again_every(table: HazardTable, period: int, *, times: int, its_class: int = 0) -> None:
    thing = Tracked()
    table.track(thing, its_class)
    for request in range(1, period * times + 1):
        list(table.advance())
        table.solve_if_due()
        if request % period == 0:
            table.note_use(thing)
            table.track(thing, its_class)


def test_what_is_asked_again_after_eight_requests_is_worth_more_then_than_at_any_other_age():
    table = new_table()
    ask_again_every(table, 8, times=200)
    index = table.index[0]
    assert index.argmax() == age_bin(8)
    assert index[age_bin(4)] > 4 * index[age_bin(16)]


def test_two_rounds_of_what_comes_in_turn_are_enough_to_forget_that_the_latest_is_the_likeliest():
    table, watched = new_table(), [Tracked() for _ in range(8)]
    for request in range(2 * len(watched)):
        list(table.advance())
        table.solve_if_due()
        thing = watched[request % len(watched)]
        table.note_use(thing)
        table.track(thing, 0)
    index = table.index[0]
    assert index[age_bin(8)] > 0.5 > index[age_bin(16)]
    assert index[age_bin(1)] < index[age_bin(4)], "it comes the sooner the longer ago it was"


def test_a_hazard_is_a_chance():
    table = new_table()
    ask_again_every(table, 2, times=500)
    assert table.index.max() <= 1.0


def test_before_any_evidence_the_oldest_is_worth_least_and_kinds_differ_by_their_prior():
    table = new_table()
    assert np.all(np.diff(table.index, axis=1) < 0)
    fresh, other = table.hazard_class(0, 0), table.hazard_class(1, 0)
    assert table.index[other, 0] / table.index[fresh, 0] == pytest.approx(KIND_PRIORS[1] / KIND_PRIORS[0])


def test_a_class_without_uses_of_its_own_borrows_from_its_row_before_its_kind():
    table = new_table()
    used = table.hazard_class(0, 0, 0)
    ask_again_every(table, 2, times=300, its_class=used)
    same_row, same_kind, other_kind = (table.hazard_class(*c) for c in ((0, 0, 1), (0, 1, 0), (1, 0, 0)))
    first = table.index[:, 0]
    assert first[used] > first[same_kind]
    assert first[same_row] > first[same_kind] > first[other_kind]


def test_rows_and_columns_beyond_the_last_are_the_last():
    table = new_table()
    assert table.hazard_class(1, 99, 99) == table.hazard_class(1, ROWS - 1, COLUMNS - 1) == NUM_CLASSES - 1
    every = [table.hazard_class(k, r, c) for k in range(2) for r in range(ROWS) for c in range(COLUMNS)]
    assert every == list(range(NUM_CLASSES))


def test_ages_beyond_the_last_bin_share_it():
    table, thing = new_table(), Tracked()
    table.track(thing, 0)
    for _ in range((1 << NUM_AGE_BINS) + 10):
        for _ in table.advance():
            pass
    assert thing.age_bin == NUM_AGE_BINS - 1
