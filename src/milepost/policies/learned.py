"""The default policy: one value for placement and eviction, learned from the traffic.

A checkpoint is worth

    (rate of requests that will resume from it) x (what each saves over the next shallower checkpoint)

per byte that it holds: its state, and the KV that nobody else needs. The rate is that of the latest prompt
through it (:mod:`milepost.reuse`: whether and when a request comes) times the chance that this request
diverges between this checkpoint and the next deeper one (:mod:`milepost.overlap`: where), or, where prompts
have diverged before, that of the branch point it serves, those included who go on along an older branch of
which nothing is held (:mod:`milepost.policies.older_branches`). So a state that a conversation has passed is
worth little unless requests come back to it; evicting a checkpoint hands its requests to the one above; and
KV weighs on the deepest checkpoint that needs it.

The *price* of a byte is what bytes were worth that had to be evicted lately. Checkpoints are placed where
they are worth more than that, all positions of a prompt together (:mod:`milepost.placement.worth`); the least
worth is evicted. There is nothing to tune: with plenty of memory the price falls to nothing, under pressure
it rises until only what will be used is stored.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import final

import numpy as np
import numpy.typing as npt

from milepost.counts import as_count
from milepost.overlap import with_points
from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.worth import plan_worth
from milepost.policies.base import CachePolicy
from milepost.policies.bids import best_bid
from milepost.policies.generations import generation_after
from milepost.policies.reuse_model import ReuseModel
from milepost.policies.situation import SituatedPlacement, Situation
from milepost.reuse import NUM_AGE_BINS
from milepost.store import Checkpoint, EvictionPolicy, InsertResult, Node, Reranking, SeenPrompt

__all__ = ["LearnedEviction", "LearnedPlacement", "learned", "with_learned_eviction"]

FloatArray = npt.NDArray[np.float64]

# No prediction is certain: any checkpoint may be asked for with at least this chance.
_LEAST_MASS = 1e-3


@final
class LearnedPlacement(SituatedPlacement):
    """Places every checkpoint that is worth its memory; of each call of ``chunk_tokens``, if given, one."""

    def __init__(self, model: ReuseModel, *, chunk_tokens: int | None = None) -> None:
        self._model = model
        self._chunk_tokens = chunk_tokens

    def place_in(
        self, situation: Situation, *, given_positions: Sequence[int] = (), capture_tokens: int = 0
    ) -> Placement:
        """Return the positions worth their memory. O(S log S) for a support of S depths."""
        model, request = self._model, self._in_calls(situation.request)
        generation = _generation(situation)
        expected = model.predict(request.num_tokens, request.breakpoints)
        situation.forecast = model.remembered(expected)
        branches, has_branches = _branches(situation, model)
        rate = model.fresh_rate(request.num_tokens, generation, has_branches=has_branches)
        rates = expected.weights * rate
        cost_per_capture, cost_per_cut = 0.0, math.inf
        if capture_tokens:
            returns = model.expected_returns(generation, proven=bool(given_positions))
            cost_per_capture = _in_each_request(request.cost_between(0, capture_tokens), rate, returns)
        if request.call_ends and request.cut_tokens is not None:
            returns = model.expected_returns(generation, proven=True)
            cost_per_cut = _in_each_request(request.cost_between(0, request.cut_tokens), rate, returns)
        best = best_bid(
            situation,
            request,
            partial(
                plan_worth,
                depths=expected.depths,
                rates=rates,
                branches=branches,
                least_gain=model.least_gain,
                cost_per_capture=cost_per_capture,
                cost_per_cut=cost_per_cut,
            ),
            price=model.price,
        )
        if not given_positions:
            return best
        depths, rates = with_points(expected.depths, rates, branches)
        return _beside_given(request, best, given_positions, depths, rates, cost_per_capture)

    def _in_calls(self, request: PlacementRequest) -> PlacementRequest:
        if self._chunk_tokens is None or request.call_ends:
            return request
        first = request.resume_position + self._chunk_tokens
        ends = range(first, request.num_tokens, self._chunk_tokens)
        return replace(request, call_ends=(*ends, request.num_tokens))


@final
class LearnedEviction(EvictionPolicy):
    """Evicts what is worth least per byte."""

    weighs_neighbours = True

    def __init__(self, model: ReuseModel) -> None:
        self._model = model

    @property
    def num_prompt_cells(self) -> int:  # type: ignore[override]
        """The classes and ages of prompts come first, then those of branch points."""
        return self._model.first_branch_cell

    @property
    def scales(self) -> FloatArray:
        """The rate of requests of each class at each age."""
        return self._model.scales

    @property
    def scales_version(self) -> int:  # type: ignore[override]
        """How often they have changed."""
        return self._model.scales_version

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return the class and age that set the rate, and what a request saves per byte."""
        model, owner = self._model, checkpoint.owner
        assert owner is not None
        position, deeper = checkpoint.position, checkpoint.deeper_position
        saving = checkpoint.saving / max(1, freed_bytes)
        forecast = model.forecast(owner)
        chance = _LEAST_MASS + forecast.chance(position, deeper, owner.passed_tokens)
        # A prompt that nobody watches any more is as old as can be.
        cell = owner.cell if owner.is_tracked else NUM_AGE_BINS - 1
        branch_points = forecast.between(position, deeper)
        if not branch_points:
            return cell, saving * chance
        # Several processes bring requests here; the rate is kept in step with the strongest of them.
        rates, first_cell = model.rates, model.first_branch_cell
        strongest = total = rates[cell] * chance
        for branch_point in branch_points:
            # Ranked again when the rate of those who diverge there changes.
            branch_point.covered_by = checkpoint
            its_cell = first_cell + branch_point.cell
            rate = rates[its_cell]
            total += rate
            if rate > strongest:
                strongest, cell = rate, its_cell
        return cell, saving * (total / rates[cell])

    def note_request(self, inserted: InsertResult) -> Reranking:
        """Learn from a request."""
        return self._model.observe(inserted)

    def note_restored(self, prompt: SeenPrompt) -> None:
        """Take a prompt of an earlier process for one that was seen just now."""
        self._model.watch(prompt)

    def note_extended(self, prompt: SeenPrompt) -> None:
        """Expect anew where others diverge from a prompt that goes on."""
        self._model.extend(prompt)

    def note_forgotten(self, node: Node) -> None:
        """Stop waiting for requests that could not be recognised any more."""
        self._model.forget(node)

    def note_eviction(self, checkpoint: Checkpoint, worth: float) -> None:
        """Let the price follow what is evicted."""
        self._model.note_price(worth)


def learned(*, share: float | None = None, chunk: int | None = None) -> CachePolicy:
    """Return a new learned policy; give each cache its own.

    Args:
        share: Share of the budget that is the states' own, as SGLang has it; one budget unless given.
        chunk: Length of a prefill chunk, of which each leaves one state; any number of states unless given.

    Raises:
        ConfigurationError: an option is out of its range.
    """
    chunk = None if chunk is None else as_count("chunk", chunk, least=1)
    _compile_kernels()
    model = ReuseModel()
    return CachePolicy(
        LearnedPlacement(model, chunk_tokens=chunk), LearnedEviction(model), lessons=model, state_share=share
    )


def with_learned_eviction(placement: PlacementPolicy) -> CachePolicy:
    """Return a policy that keeps states where ``placement`` says, and evicts as the learned one does: so what
    its own positions add can be told apart.
    """
    _compile_kernels()
    model = ReuseModel()
    return CachePolicy(placement, LearnedEviction(model), lessons=model)


@cache
def _compile_kernels() -> None:
    """Run through what a request runs through, so that none waits for a compiler."""
    model = ReuseModel()
    model.overlap.observe(128, 256)
    LearnedPlacement(model).place(
        PlacementRequest(num_tokens=256, overlap_depth=128, grid=16, checkpoint_bytes=1)
    )


def _in_each_request(cost: float, rate: float, returns: float) -> float:
    """Return what a cost is in each request's time that is paid once, for as many requests as will come: at
    their rate, it is paid off while they do.
    """
    if not returns:
        return math.inf if cost else 0.0
    return cost * rate / returns


def _generation(situation: Situation) -> int:
    """Return the generation of the prompt, as it will be remembered."""
    earlier, prompt = situation.earlier, situation.prompt
    if earlier is None:
        return prompt.generation
    generation = generation_after(earlier, situation.request.overlap_depth)
    return prompt.generation if generation is None else generation


def _branches(situation: Situation, model: ReuseModel) -> tuple[list[tuple[int, float]], bool]:
    """Return where requests diverge along the prompt beyond the resume position, and at what rate: at watched
    branch points, and at one that is watched from now on; and whether there are any on its path.
    """
    request, earlier = situation.request, situation.earlier
    depth, resume, last = request.overlap_depth, request.resume_position, request.num_tokens - 1
    watched = [point for point in situation.branch_points if point.is_tracked]
    branches = [
        (min(point.position, last), model.branch_rate(point, visited_now=point.position == depth))
        for point in watched
        if point.position > resume
    ]
    if earlier is None or any(point.position == depth for point in watched):
        return branches, bool(watched)
    num_visits = next((point.visits for point in situation.branch_points if point.position == depth), 0)
    is_new = model.is_branch_point(depth, earlier.num_tokens, request.num_tokens, num_visits=num_visits)
    if is_new and depth > resume and model.overlap.is_divergence(depth, request.num_tokens):
        branches.append((depth, model.new_branch_rate))
    return branches, is_new or bool(watched)


def _beside_given(
    request: PlacementRequest,
    placement: Placement,
    given_positions: Sequence[int],
    depths: npt.NDArray[np.int64],
    rates: FloatArray,
    cost_per_capture: float,
) -> Placement:
    """Return those positions of a plan that pay for their capture beside the states that are given: what each
    saves over the next shallower one, at the rate of requests that diverge before the next deeper one. O(n^2)
    for a plan of n.
    """
    given = set(given_positions)
    chosen = sorted({request.resume_position, *placement.positions, *given})
    before = np.concatenate(([0.0], np.cumsum(rates)))

    def gain(at: int) -> float:
        above, position = chosen[at - 1], chosen[at]
        deeper = chosen[at + 1] if at + 1 < len(chosen) else request.num_tokens
        rate = before[np.searchsorted(depths, deeper)] - before[np.searchsorted(depths, position)]
        return float(rate) * request.cost_between(above, position)

    while True:
        extras = [at for at in range(1, len(chosen)) if chosen[at] not in given]
        least = min(extras, key=gain, default=None)
        if least is None or gain(least) >= cost_per_capture:
            return Placement(tuple(chosen[1:]))
        del chosen[least]
