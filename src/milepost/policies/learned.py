"""The default policy: one value for placement and eviction, learned from the traffic.

A checkpoint is worth

    (rate of requests that will resume from it) x (what each saves over the next shallower checkpoint)

per byte that it holds: its state, and the KV that nobody else needs. The rate is that of the latest prompt
through it (:mod:`milepost.reuse`: whether and when a request comes) times the chance that this request parts
between this checkpoint and the next deeper one (:mod:`milepost.overlap`: where), or, where prompts have
parted before, that of the junction it serves. So a state that a conversation has passed is worth little
unless requests come back to it; evicting a checkpoint hands its requests to the one above; and KV weighs on
the deepest checkpoint that needs it.

The *price* of a byte is what bytes were worth that had to be evicted lately. Checkpoints are placed where
they are worth more than that, all positions of a prompt together (:mod:`milepost.placement.worth`); the least
worth is evicted. There is nothing to tune: with plenty of memory the price falls to nothing, under pressure
it rises until only what will be used is stored.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import final

import numpy as np
import numpy.typing as npt

from milepost.overlap import with_points
from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.worth import plan_worth
from milepost.policies.base import CachePolicy
from milepost.policies.traffic import Traffic, follow
from milepost.reuse import NUM_AGE_BINS, Sighting
from milepost.store import Checkpoint, EvictionPolicy, Node, Passage, Reranking

__all__ = ["LearnedEviction", "LearnedPlacement", "learned", "with_learned_eviction"]

FloatArray = npt.NDArray[np.float64]

# No prediction is certain: any checkpoint may be asked for with at least this chance.
_LEAST_MASS = 1e-3
# Plans tried for a prompt, each at the price that the one before it met.
_BIDS = 3


@final
class LearnedPlacement(PlacementPolicy):
    """Places every checkpoint that is worth its memory."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def place(self, request: PlacementRequest) -> Placement:
        """Return the positions worth their memory. O(S log S) for a support of S depths."""
        traffic = self._traffic
        sighting = request.sighting or Sighting(request.num_tokens)
        depth = request.overlap_depth
        if request.earlier is not None:
            follow(sighting, request.earlier, depth)
        forecast = traffic.forecast(sighting)
        rate = traffic.fresh_rate(sighting)
        junctions = [
            (
                min(position, request.num_tokens - 1),
                traffic.junction_rate(junction, visited_now=position == depth),
            )
            for position, junction in request.junctions
            if position > request.resume_position
        ]
        if _parts_anew(request, traffic):
            junctions.append((depth, traffic.new_junction_rate))
        rates = forecast.weights * rate
        price, cost_per_capture = traffic.price, 0.0
        if request.capture_tokens:
            # Paid once, for as many requests as will come: at their rate, it is paid off while they do.
            returns = traffic.expected_returns(sighting, proven=bool(request.given_positions))
            cost_per_capture = _capture_cost(request) * rate / returns if returns else math.inf
        for _ in range(_BIDS):
            plan = plan_worth(
                request,
                forecast.depths,
                rates,
                junctions=junctions,
                price_per_byte=price,
                least_gain=traffic.least_gain,
                cost_per_capture=cost_per_capture,
            )
            worth = request.room_worth(plan.num_bytes) if request.room_worth and plan.num_bytes else 0.0
            if worth <= plan.saving:
                if not request.given_positions:
                    return plan.placement
                expected = with_points(forecast.depths, rates, junctions)
                return _beside_given(request, plan.placement, *expected, cost_per_capture)
            # What would have to go is worth more. So that is the price, and a smaller plan may be worth it.
            price = max(2.0 * price, worth / plan.num_bytes)
        return Placement()


@final
class LearnedEviction(EvictionPolicy):
    """Evicts what is worth least per byte."""

    weighs_neighbours = True

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    @property
    def num_prompt_cells(self) -> int:  # type: ignore[override]
        """The classes and ages of prompts come first, then those of junctions."""
        return self._traffic.first_junction_cell

    @property
    def scales(self) -> FloatArray:
        """The rate of requests of each class at each age."""
        return self._traffic.scales

    @property
    def scales_version(self) -> int:  # type: ignore[override]
        """How often they have changed."""
        return self._traffic.scales_version

    def rank(self, checkpoint: Checkpoint, held_bytes: int) -> tuple[int, float]:
        """Return the class and age that set the rate, and what a request saves per byte."""
        traffic, sighting = self._traffic, checkpoint.sighting
        assert sighting is not None
        position, deeper = checkpoint.position, checkpoint.deeper_position
        saving = checkpoint.saving / max(1, held_bytes)
        forecast = traffic.forecast(sighting)
        chance = _LEAST_MASS + forecast.chance(position, deeper, sighting.taken)
        # A prompt that nobody watches any more is as old as can be.
        cell = sighting.cell if sighting.is_tracked else NUM_AGE_BINS - 1
        junctions = forecast.junctions_between(position, deeper)
        if not junctions:
            return cell, saving * chance
        # Several processes bring requests here; the rate is kept in step with the strongest of them.
        rates, first_cell = traffic.rates, traffic.first_junction_cell
        strongest = total = rates[cell] * chance
        for junction in junctions:
            junction.covered_by = checkpoint
            its_cell = first_cell + junction.cell
            rate = rates[its_cell]
            total += rate
            if rate > strongest:
                strongest, cell = rate, its_cell
        return cell, saving * (total / rates[cell])

    def note_request(self, passage: Passage) -> Reranking:
        """Learn from a request."""
        return self._traffic.observe(passage)

    def note_prolonged(self, sighting: Sighting) -> Callable[[], None]:
        """Expect anew where others part from a prompt that goes on."""
        return self._traffic.prolong(sighting)

    def note_forgotten(self, node: Node) -> None:
        """Stop waiting for requests that could not be recognised any more."""
        self._traffic.forget(node)

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:
        """Let the price follow what is evicted."""
        self._traffic.note_price(worth)


def learned() -> CachePolicy:
    """Return a new learned policy; give each cache its own."""
    _compile_kernels()
    traffic = Traffic()
    return CachePolicy(LearnedPlacement(traffic), LearnedEviction(traffic), lessons=traffic)


def with_learned_eviction(placement: PlacementPolicy) -> CachePolicy:
    """Return a policy that keeps states where ``placement`` says, and evicts as the learned one does: so what
    its own positions add can be told apart.
    """
    _compile_kernels()
    traffic = Traffic()
    return CachePolicy(placement, LearnedEviction(traffic), lessons=traffic)


@cache
def _compile_kernels() -> None:
    """Run through what a request runs through, so that none waits for a compiler."""
    traffic = Traffic()
    traffic.overlap.observe(128, 256)
    LearnedPlacement(traffic).place(
        PlacementRequest(num_tokens=256, overlap_depth=128, grid=16, checkpoint_bytes=1)
    )


def _parts_anew(request: PlacementRequest, traffic: Traffic) -> bool:
    """Return whether this prompt is the first to part from an earlier one where it does."""
    depth, earlier = request.overlap_depth, request.earlier
    return (
        earlier is not None
        and depth > request.resume_position
        and traffic.overlap.is_junction(depth, min(earlier.num_tokens, request.num_tokens))
        and all(position != depth for position, _ in request.junctions)
    )


def _beside_given(
    request: PlacementRequest,
    placement: Placement,
    depths: npt.NDArray[np.int64],
    rates: FloatArray,
    cost_per_capture: float,
) -> Placement:
    """Return those positions of a plan that pay for their capture beside the states that are given: what each
    saves over the next shallower one, at the rate of requests that part before the next deeper one. O(n^2)
    for a plan of n.
    """
    given = set(request.given_positions)
    chosen = sorted({request.resume_position, *placement.positions, *given})
    before = np.concatenate(([0.0], np.cumsum(rates)))

    def gain(at: int) -> float:
        above, position = chosen[at - 1], chosen[at]
        deeper = chosen[at + 1] if at + 1 < len(chosen) else request.num_tokens
        rate = before[np.searchsorted(depths, deeper)] - before[np.searchsorted(depths, position)]
        return float(rate) * _cost_between(request, above, position)

    while True:
        extras = [at for at in range(1, len(chosen)) if chosen[at] not in given]
        least = min(extras, key=gain, default=None)
        if least is None or gain(least) >= cost_per_capture:
            return Placement(tuple(chosen[1:]))
        del chosen[least]


def _cost_between(request: PlacementRequest, start: int, end: int) -> float:
    if request.cost is None:
        return float(end - start)
    above, below = request.cost(np.array([start, end], np.int64))
    return float(below - above)


def _capture_cost(request: PlacementRequest) -> float:
    if request.cost is None:
        return float(request.capture_tokens)
    return float(request.cost(np.array([request.capture_tokens], np.int64))[0])
