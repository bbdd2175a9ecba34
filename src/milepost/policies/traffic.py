"""What the learned policy knows of the traffic: where requests part from earlier prompts, whether and when
they come, and what a byte is worth.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

from milepost.overlap import BoundaryModel, OverlapDistribution, OverlapModel, with_points
from milepost.reuse import HazardTable, Junction, ReturnRates, Sighting
from milepost.store import Checkpoint, Node, Passage, Reranking

__all__ = ["Forecast", "Traffic", "follow"]

FloatArray = npt.NDArray[np.float64]

# Kinds of prompts: nobody has followed it; another has parted from it; another has taken over most of it.
_FRESH, _BRANCHED, _CONTINUED = 0, 1, 2
_KIND_PRIORS = (1.0, 0.3, 0.1)
_JUNCTION_PRIORS = (0.3,)
# A prompt that shares at least this much of an earlier one continues it. The one constant that has to stay
# well off its end: were only whole prompts continued, no question about a document would count as the next
# one.
_CONTINUES = 0.5
# Shorter overlaps say nothing, unless they are most of the earlier prompt: every chat begins with the same
# few template tokens.
_LEAST_OVERLAP_TOKENS = 64
# Generations 0 to 4 each for itself, then 5 and 6, 7 to 9, and more.
_GENERATION_ROWS = (0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7)
# Lengths by powers of two, from 64 tokens on.
_LENGTH_COLUMNS = 12
# All predictions are made anew whenever the evidence has doubled, up to 2**7 sharings, about as many as the
# overlap model remembers.
_LESSONS = 7
_OUTDATED = -1
# How much each eviction says about the price, and each request for which nothing was stored or evicted.
_PRICE_WEIGHT = 0.05
# A capture is not quite free: a checkpoint adds at least this share of what a prompt can save at all. More is
# asked before the first sharing, when nobody knows what will be shared, and half of it after two.
_LEAST_GAIN = 1 / 128
_LEAST_GAIN_AT_FIRST = 1 / 16


@final
class Forecast:
    """Where the next request parts from a prompt: depths ascending and their weights, shape ``[K]``; and the
    places on its path where prompts have parted, ascending.
    """

    __slots__ = ("_positions", "_table", "depths", "junctions", "lesson", "weights")

    def __init__(self, expected: OverlapDistribution, lesson: int, junctions: list[Junction]) -> None:
        self.depths = expected.depths
        self.weights = expected.weights
        self.lesson = lesson
        self.meet(junctions)
        # Depths and the weight before each, made when they are first searched; as lists, since that is done
        # one number at a time.
        self._table: tuple[list[int], list[float]] | None = None

    def meet(self, junctions: list[Junction]) -> None:
        """Note where prompts have parted on this prompt's path, ascending."""
        self.junctions = junctions
        self._positions = [junction.position for junction in junctions]

    def junctions_between(self, start: int, end: float) -> list[Junction]:
        """Return the junctions in ``[start, end)``. O(log n), and those found."""
        positions = self._positions
        if not positions or positions[-1] < start:
            return []
        return self.junctions[bisect_left(positions, start) : bisect_left(positions, end)]

    def chance(self, start: int, end: float, taken: int) -> float:
        """Return the chance of a parting in ``[start, end)``, given that the next request does not part in
        the first ``taken`` tokens: it was others that passed through there.
        """
        if self._table is None:
            self._table = self.depths.tolist(), [0.0, *self.weights.cumsum().tolist()]
        depths, before = self._table
        total = before[-1]
        mass = (total if end == math.inf else before[bisect_left(depths, end)]) - before[
            bisect_left(depths, start)
        ]
        if taken == 0:
            return mass
        rest = total - before[bisect_right(depths, taken)]
        return min(1.0, mass / rest) if rest > 0.0 else 0.0


@final
class Traffic:
    """What is learned from the requests, for both halves of the policy."""

    def __init__(self) -> None:
        self.overlap = OverlapModel()
        self.boundaries = BoundaryModel()
        self.prompts: HazardTable[Sighting] = HazardTable(
            kind_priors=_KIND_PRIORS, rows=_GENERATION_ROWS[-1] + 1, columns=_LENGTH_COLUMNS
        )
        self.junctions: HazardTable[Junction] = HazardTable(
            kind_priors=_JUNCTION_PRIORS, rows=_GENERATION_ROWS[-1] + 1
        )
        self.returns = ReturnRates(_GENERATION_ROWS[-1] + 1)
        self.first_junction_cell = self.prompts.index.size
        self._lesson = 0
        self.scales_version = 0
        # Both indices side by side, as the scales of the cells.
        self.scales = np.empty(self.first_junction_cell + self.junctions.index.size)
        # As a list, since they are looked up one at a time.
        self.rates: list[float] = []
        self._gather()
        #: Worth of a byte: expected saving per request, of what was evicted lately.
        self.price = 0.0
        self._has_evicted = False
        self._latest = Sighting(0)

    @property
    def least_gain(self) -> float:
        """Share of what a prompt can save that one checkpoint has to add."""
        return max(_LEAST_GAIN, _LEAST_GAIN_AT_FIRST / (1.0 + self.overlap.num_shared / 2.0))

    def hazard_class(self, sighting: Sighting, kind: int) -> int:
        """Return the class of a prompt."""
        length = max(0, sighting.num_tokens.bit_length() - 6)
        return self.prompts.hazard_class(kind, _row(sighting.generation), length)

    def fresh_rate(self, sighting: Sighting) -> float:
        """Return the rate of requests that follow a prompt just seen."""
        return float(self.prompts.index[self.hazard_class(sighting, _FRESH), 0])

    def expected_returns(self, sighting: Sighting, *, proven: bool = False) -> float:
        """Return how many requests a prompt just seen will bring; ``proven``, by the evidence alone."""
        return self.returns.expected(_row(sighting.generation), proven=proven)

    def junction_rate(self, junction: Junction, *, visited_now: bool) -> float:
        """Return the rate of requests that part at ``junction``."""
        if visited_now:
            return float(self.junctions.index[self.junctions.hazard_class(0, _row(junction.visits)), 0])
        return float(self.junctions.index[junction.hazard_class, junction.age_bin])

    @property
    def new_junction_rate(self) -> float:
        """Rate of requests that part where two have parted for the first time just now."""
        return float(self.junctions.index[self.junctions.hazard_class(0, _row(0)), 0])

    def forecast(self, sighting: Sighting) -> Forecast:
        """Return where the next request will part from a prompt, predicted once in each lesson."""
        found: Forecast | None = sighting.forecast
        if found is None or found.lesson < self._lesson:
            expected = self.overlap.predict(sighting.num_tokens)
            if sighting.breakpoints:
                expected = self._with_breakpoints(expected, sighting)
            junctions = [] if found is None else found.junctions
            found = sighting.forecast = Forecast(expected, self._lesson, junctions)
        return found

    def _with_breakpoints(self, expected: OverlapDistribution, sighting: Sighting) -> OverlapDistribution:
        """Return the mixture of what is expected anyway with partings at the boundaries of a prompt."""
        known = [
            (depth, share)
            for depth, share in self.boundaries.predict(sighting.breakpoints)
            if depth < sighting.num_tokens
        ]
        rest = max(0.0, 1.0 - sum(share for _, share in known))
        return OverlapDistribution(*with_points(expected.depths, expected.weights * rest, known))

    def observe(self, passage: Passage) -> Reranking:
        """Learn from one request; return the checkpoints whose worth has changed. O(log n) amortised."""
        if not self._has_evicted and not self._latest.held:
            # Where nothing comes and nothing has to go, memory is worth less than was thought.
            self.price -= self.price * _PRICE_WEIGHT
        self._has_evicted, self._latest = False, passage.sighting
        lesson = self._lesson
        changed: list[Checkpoint] = []
        moved: list[tuple[Sighting, int]] = []
        for sighting in self.prompts.advance():
            if sighting.held:
                moved.append((sighting, sighting.cell))
            else:
                # It has nothing to be ranked by it, and forecasts are large.
                sighting.forecast = None
        changed += [j.covered_by for j in self.junctions.advance() if j.covered_by is not None]
        if self.prompts.solve_if_due() | self.junctions.solve_if_due():
            self._gather()
        new, earlier, depth = passage.sighting, passage.earlier, passage.overlap_depth
        if earlier is not None and follow(new, earlier, depth):
            self.returns.note_return(_row(earlier.generation))
            self._credit(passage, earlier)
        self.returns.note_prompt(_row(new.generation))
        self.forecast(new).meet([node.junction for node in passage.path if node.junction is not None])
        self.prompts.track(new, self.hazard_class(new, _FRESH))
        for old, taken in passage.displaced.items():
            self._displace(old, taken)
            changed += old.held.values()
        return Reranking(changed, moved, everything=self._lesson > lesson)

    def prolong(self, sighting: Sighting) -> Callable[[], None]:
        """Expect anew where others part from a prompt that goes on; return what takes that back."""
        before = sighting.hazard_class
        self._expect_anew(sighting, self.hazard_class(sighting, _FRESH))
        return lambda: self._expect_anew(sighting, before)

    def export(self) -> dict[str, Any]:
        """Return what was learned of the traffic, as plain numbers: no prompt, and nothing of one."""
        return {
            "overlap": self.overlap.export(),
            "boundaries": self.boundaries.export(),
            "prompts": self.prompts.export(),
            "junctions": self.junctions.export(),
            "returns": self.returns.export(),
            "price": self.price,
        }

    def restore(self, exported: dict[str, Any]) -> None:
        """Take over what :meth:`export` gave, before the first request; raise ``ValueError`` where that
        cannot be.
        """
        self.overlap.restore(exported["overlap"])
        self.boundaries.restore(exported["boundaries"])
        self.prompts.restore(exported["prompts"])
        self.junctions.restore(exported["junctions"])
        self.returns.restore(exported["returns"])
        self.price = max(0.0, float(exported["price"]))
        self._lesson = min(_LESSONS, self.overlap.num_shared.bit_length())
        self._gather()

    def forget(self, node: Node) -> None:
        """Stop watching what only ``node`` told of."""
        if not node.sighting.held and node.sighting.taken <= node.start:
            self.prompts.release(node.sighting)
            node.sighting.forecast = None
        if node.junction is not None:
            self.junctions.release(node.junction)
            node.junction.covered_by = None

    def note_price(self, worth: float) -> None:
        """Learn what an evicted byte was worth."""
        self.price += (worth - self.price) * (_PRICE_WEIGHT if self.price else 1.0)
        self._has_evicted = True

    def _expect_anew(self, sighting: Sighting, hazard_class: int) -> None:
        if sighting.forecast is not None:
            sighting.forecast.lesson = _OUTDATED
        self.prompts.reclassify(sighting, hazard_class)

    def _credit(self, passage: Passage, earlier: Sighting) -> None:
        """Count the request as a use of the junction where it parted, or else of the earlier prompt."""
        met, depth = passage.met, passage.overlap_depth
        assert met is not None
        if met.junction is not None and met.end == depth:
            self.junctions.note_use(met.junction)
            self._visit(met.junction)
            return
        self.prompts.note_use(earlier)
        num_tokens = max(earlier.num_tokens, depth)
        if earlier.breakpoints:
            boundary = self.boundaries.at(earlier.breakpoints, depth)
            expected = 0.0
            if boundary is not None:
                plain = Forecast(self.overlap.predict(earlier.num_tokens), 0, [])
                expected = plain.chance(boundary, boundary + self.boundaries.width, 0)
            self.boundaries.observe(earlier.breakpoints, depth, expected=expected)
        self.overlap.observe(depth, num_tokens)
        if self.overlap.num_shared == 1 << self._lesson and self._lesson < _LESSONS:
            # What was predicted from half of the evidence is not worth much.
            self._lesson += 1
        if passage.parted and self.overlap.is_junction(depth, num_tokens):
            met.junction = Junction(depth)
            self._visit(met.junction)

    def _visit(self, junction: Junction) -> None:
        junction.visits += 1
        self.junctions.track(junction, self.junctions.hazard_class(0, _row(junction.visits - 1)))

    def _displace(self, old: Sighting, taken: int) -> None:
        """Take from ``old`` what a later prompt has passed through."""
        old.taken = max(old.taken, taken)
        if old.num_tokens - old.taken < _LEAST_OVERLAP_TOKENS and not old.held:
            self.prompts.release(old)
        elif taken >= _CONTINUES * old.num_tokens:
            self.prompts.reclassify(old, self.hazard_class(old, _CONTINUED))
        elif taken >= _LEAST_OVERLAP_TOKENS and old.hazard_class < self.hazard_class(old, _CONTINUED):
            self.prompts.reclassify(old, self.hazard_class(old, _BRANCHED))

    def _gather(self) -> None:
        self.scales[: self.first_junction_cell] = self.prompts.index.reshape(-1)
        self.scales[self.first_junction_cell :] = self.junctions.index.reshape(-1)
        self.rates = self.scales.tolist()
        self.scales_version += 1


def follow(new: Sighting, earlier: Sighting, depth: int) -> bool:
    """Note the generation of a prompt that shares ``depth`` tokens of ``earlier``; return whether that is
    more than the template that every prompt begins with.
    """
    continues = depth >= _CONTINUES * earlier.num_tokens
    if not continues and depth < _LEAST_OVERLAP_TOKENS:
        return False
    new.generation = earlier.generation + 1 if continues else 0
    return True


def _row(count: int) -> int:
    return _GENERATION_ROWS[min(max(0, count), len(_GENERATION_ROWS) - 1)]
