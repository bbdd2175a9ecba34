"""The chance of a next use, by age, learned online and by maximum likelihood.

Law
    A tracked thing ages from its last use, in requests. Age ``a`` falls into bin ``floor(log2 a)``. In each
    (class, bin) the table counts *exposure*, how many tracked things spent how many requests there, and
    *uses*. Their ratio is the hazard ``h``: the chance that the next request uses this thing. Exposure counts
    whether or not the thing is still cached, so what is evicted early is learned all the same.

Shrinkage
    Three levels, so that a class with few uses borrows from its kind: all things by age; scaled by one factor
    for each row of classes; then by age within the row; then scaled by one factor for each class. Each
    level counts as ``PRIOR_USES`` uses of evidence for the next one, and what is thought before there is any
    as a single use: a guess is to give way at once.

Index
    What memory should be held for is not the chance of a use in the next request but in the best stretch of
    requests from now on: ``index = max over t of P(use within t) / E[requests held until then]``, Gittins'
    index of a thing that pays once. For a falling hazard it is the hazard; where the hazard rises (people
    take a while to read an answer) it looks ahead.

Complexity: a thing changes its bin O(log age) times in its life, each in O(1); the indices are solved every
``_REFRESH_REQUESTS`` requests. Nothing depends on how many things are tracked.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, final

import numpy as np
import numpy.typing as npt

from milepost.kernels import kernel
from milepost.untracked import untracked

__all__ = ["NUM_AGE_BINS", "HazardTable", "Tracked"]

FloatArray = npt.NDArray[np.float64]

# Ages up to 2**17 requests; older things share the last bin.
NUM_AGE_BINS = 17
# Evidence, in uses, that each level of the estimate counts as for the next.
PRIOR_USES = 2.0
# Before any evidence the next request uses a fresh thing with this chance, halved as the age doubles: the
# scale-free hazard c / age, under which the best thing to evict is the least recently used. Where every
# document comes as often as any other, that is wrong, and is to be unlearned within tens of requests. With
# twice the chance, what nobody had ever asked for again would be kept through hundreds of requests.
_PRIOR_HAZARD = 0.2
# A solution is good for this many requests; the first ones, when every use counts, are solved at once.
_REFRESH_REQUESTS = 256
_NEVER = -1


class Tracked:
    """Something whose age is watched.

    Attributes:
        tick: When it was last used.
        hazard_class: Its class in the table; below 0 while it is not tracked, see ``is_tracked``.
        age_bin: The bin of its age.
        cell: Where the flat table has its class and age; of no meaning while it is not tracked.
        entered: When it came into this class and bin.
    """

    __slots__ = ("age_bin", "cell", "entered", "hazard_class", "tick")

    def __init__(self) -> None:
        self.tick = 0
        self.hazard_class = _NEVER
        self.age_bin = 0
        self.cell = 0
        self.entered = 0

    @property
    def is_tracked(self) -> bool:
        """Whether a table watches it."""
        return self.hazard_class >= 0


ThingT = TypeVar("ThingT", bound=Tracked)


@final
class HazardTable(Generic[ThingT]):
    """Hazards of ``kinds x rows x columns`` classes of things. See the module.

    Args:
        kind_priors: Prior hazard of each kind relative to that of a fresh thing, shape ``[kinds]``. Kinds
            share nothing else.
        rows: Classes that share the shape by age of their kind.
        columns: Classes that share the hazard of their row up to one factor.

    Attributes:
        index: The index of each class at each age, shape ``[num_classes, NUM_AGE_BINS]``; written in place.
    """

    def __init__(self, *, kind_priors: tuple[float, ...], rows: int, columns: int = 1) -> None:
        self._shape = (len(kind_priors), rows, columns, NUM_AGE_BINS)
        self._kind_priors = np.array(kind_priors)
        # By class and age bin, as lists: single elements are what is touched.
        num_cells = len(kind_priors) * rows * columns * NUM_AGE_BINS
        self._uses = [0.0] * num_cells
        # Exposure of things that have left the cell, and, of those in it, how many and the sum of entry
        # ticks: together the exposure of all, at any time.
        self._past_exposure = [0] * num_cells
        self._present = [0] * num_cells
        self._entered = [0] * num_cells
        self._queues: tuple[deque[tuple[ThingT, int]], ...] = tuple(
            untracked(deque()) for _ in range(NUM_AGE_BINS)
        )
        self._tick = 0
        self._solve_at = 1
        self.index = np.zeros((self._shape[0] * rows * columns, NUM_AGE_BINS))
        self._solve()

    @property
    def num_requests(self) -> int:
        """How many requests have passed."""
        return self._tick

    def hazard_class(self, kind: int, row: int, column: int = 0) -> int:
        """Return the class of a kind, row and column. Rows and columns beyond the last are the last."""
        _, rows, columns, _ = self._shape
        return (kind * rows + min(row, rows - 1)) * columns + min(column, columns - 1)

    def advance(self) -> Iterator[ThingT]:
        """Let one request pass; yield the things whose age bin has changed by it."""
        # A thing that changes its bin does so before this request counts as exposure, as its uses do.
        now = self._tick + 1
        for age_bin in range(NUM_AGE_BINS - 1):
            queue = self._queues[age_bin]
            horizon = now - (2 << age_bin)
            while queue and queue[0][1] <= horizon:
                entry = queue.popleft()
                thing, tick = entry
                if thing.tick != tick or thing.hazard_class < 0:
                    continue
                self._leave(thing)
                thing.age_bin = age_bin + 1
                self._enter(thing)
                # In the last bin, things stay.
                if age_bin + 2 < NUM_AGE_BINS:
                    self._queues[age_bin + 1].append(entry)
                yield thing
        self._tick = now

    def solve_if_due(self) -> bool:
        """Solve the indices anew where enough has been seen since; return whether that was done."""
        if self._tick < self._solve_at:
            return False
        self._solve_at = self._tick + min(_REFRESH_REQUESTS, max(1, self._tick // 4))
        self._solve()
        return True

    def track(self, thing: ThingT, hazard_class: int) -> None:
        """Watch ``thing`` as just used. One already watched is moved. O(1)."""
        if thing.hazard_class >= 0:
            self._leave(thing)
        thing.tick, thing.age_bin, thing.hazard_class = self._tick, 0, hazard_class
        self._enter(thing)
        self._queues[0].append(untracked((thing, self._tick)))

    def note_use(self, thing: Tracked) -> None:
        """Count a use of ``thing`` at its age."""
        if thing.hazard_class >= 0:
            self._uses[thing.cell] += 1.0

    def reclassify(self, thing: Tracked, hazard_class: int) -> None:
        """Move ``thing``, at its age, to another class."""
        if 0 <= thing.hazard_class != hazard_class:
            self._leave(thing)
            thing.hazard_class = hazard_class
            self._enter(thing)

    def release(self, thing: Tracked) -> None:
        """Watch ``thing`` no more."""
        if thing.hazard_class >= 0:
            self._leave(thing)
            thing.hazard_class = _NEVER

    def export(self) -> dict[str, Any]:
        """Return uses and exposure by class and age, as plain numbers, and how many requests have passed."""
        return {"uses": list(self._uses), "exposure": self._exposure().tolist(), "requests": self._tick}

    def restore(self, exported: dict[str, Any]) -> None:
        """Take over what :meth:`export` gave, in a table that watches nothing yet; raise ``ValueError`` where
        that cannot be.
        """
        uses = [float(each) for each in exported["uses"]]
        exposure = [int(each) for each in exported["exposure"]]
        if not len(uses) == len(exposure) == len(self._uses):
            raise ValueError(f"{len(uses)} and {len(exposure)} cells, not {len(self._uses)}")
        if min(uses) < 0 or min(exposure) < 0 or not all(map(math.isfinite, uses)):
            raise ValueError("uses and exposure are numbers of at least 0")
        self._uses, self._past_exposure = uses, exposure
        self._tick = int(exported["requests"])
        self._solve()

    def merge(self, exports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one export of several: all counts are added up, exactly."""
        return {
            name: [sum(cell) for cell in zip(*(each[name] for each in exports), strict=True)]
            for name in ("uses", "exposure")
        } | {"requests": sum(each["requests"] for each in exports)}

    def _exposure(self) -> FloatArray:
        """Return the exposure of all things up to now, those in their cells included."""
        present, entered = np.array(self._present), np.array(self._entered)
        exposure: FloatArray = np.array(self._past_exposure, np.float64) + present * self._tick - entered
        return exposure

    def _enter(self, thing: Tracked) -> None:
        cell = thing.cell = thing.hazard_class * NUM_AGE_BINS + thing.age_bin
        thing.entered = self._tick
        self._present[cell] += 1
        self._entered[cell] += self._tick

    def _leave(self, thing: Tracked) -> None:
        cell = thing.cell
        self._present[cell] -= 1
        self._entered[cell] -= thing.entered
        self._past_exposure[cell] += self._tick - thing.entered

    def _solve(self) -> None:
        prior = _PRIOR_HAZARD * 0.5 ** np.arange(NUM_AGE_BINS)
        uses = np.array(self._uses).reshape(self._shape)
        exposure = self._exposure().reshape(self._shape)
        by_age = (uses.sum((1, 2)) + self._kind_priors[:, None]) / (exposure.sum((1, 2)) + 1.0 / prior)
        row_uses, row_exposure = uses.sum(2), exposure.sum(2)
        row_scale = _ratio(row_uses, row_exposure, by_age[:, None, :])
        by_row = by_age[:, None, :] * row_scale
        by_row = (row_uses + PRIOR_USES) / (row_exposure + PRIOR_USES / by_row)
        hazards = by_row[:, :, None, :] * _ratio(uses, exposure, by_row[:, :, None, :])
        _solve_indices(np.ascontiguousarray(hazards.reshape(self.index.shape)), self.index)


def _ratio(uses: FloatArray, exposure: FloatArray, hazards: FloatArray) -> FloatArray:
    """Return by how much more things were used than ``hazards`` expect, over all ages, shrunk towards 1."""
    strength = 2.0 * PRIOR_USES
    expected = (exposure * hazards).sum(-1, keepdims=True)
    scale: FloatArray = (uses.sum(-1, keepdims=True) + strength) / (expected + strength)
    return scale


@kernel("void(float64[:, ::1], float64[:, ::1])")
def _solve_indices(hazards: FloatArray, index: FloatArray) -> None:
    """Fill ``index``, both of shape ``[classes, NUM_AGE_BINS]``. A stretch ends with a bin."""
    num_classes, num_bins = hazards.shape
    for c in range(num_classes):
        for first in range(num_bins):
            survival, used, held, best = 1.0, 0.0, 0.0, 0.0
            for age_bin in range(first, num_bins):
                hazard = hazards[c, age_bin]
                chance = 1.0 - math.exp(-hazard * (1 << age_bin))
                used += survival * chance
                held += survival * chance / hazard
                survival *= 1.0 - chance
                best = max(best, used / held)
            index[c, first] = best
