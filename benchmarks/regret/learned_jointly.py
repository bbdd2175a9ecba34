"""The learned policy with one plan for the whole tree at every request.

Rates are the learned policy's own: of each prompt by its class and age, times the chance that a request
diverges in a stretch of it, and of each branch point. But what is held and what the request at hand could
add are planned together (:mod:`benchmarks.regret.tree_plan`), where the learned policy plans the prompt at a
price and then takes one victim after the other. What is not in the plan goes first where room is needed.

The plan is that of the best price, which falls short of the exact one by less than a state and the KV that
it needs alone.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import final

from benchmarks.regret.live_tree import Place, as_tree, places_of
from benchmarks.regret.tree_plan import plan_tree
from milepost.lease import Lease
from milepost.overlap import with_points
from milepost.placement import Placement
from milepost.policies import CachePolicy
from milepost.policies.generations import continues, is_overlap
from milepost.policies.learned import _LEAST_MASS as LEAST_MASS
from milepost.policies.learned import LearnedEviction, LearnedPlacement, _branches, _generation
from milepost.policies.reuse_model import _BRANCHED, _CONTINUED, ReuseModel
from milepost.prefix_cache import PrefixCache
from milepost.reuse import NUM_AGE_BINS
from milepost.simulator import nominal_footprint
from milepost.store import (
    Checkpoint,
    ContentlessPayloads,
    EvictionPolicy,
    InsertResult,
    Node,
    Reranking,
    SeenPrompt,
)
from milepost.traces import TraceRequest

__all__ = ["replay_learned_jointly"]

# More than anything is worth, in tokens saved a request and byte.
_KEPT = 1.0


def replay_learned_jointly(
    requests: Sequence[TraceRequest], *, grid: int, capacity_tokens: int, state_tokens: int
) -> int:
    """Return the tokens reused. O(requests * (what is held + the plan of it))."""
    footprint = nominal_footprint(float(state_tokens))
    model = ReuseModel()
    eviction = _PlannedEviction(model)
    cache = PrefixCache(
        capacity_bytes=capacity_tokens * footprint.kv_bytes_per_token,
        footprint=footprint,
        # It is never asked: plans are made here. But it says what the others are made of.
        policy=CachePolicy(LearnedPlacement(model), eviction),
        grid=grid,
        key_tokens=requests[0].key_tokens,
    )
    payloads = ContentlessPayloads(footprint, segment_tokens=grid)
    reused = 0
    for request in requests:
        with cache.acquire(
            request.keys,
            num_tokens=request.num_tokens,
            tenant=request.tenant,
            breakpoints=request.breakpoints,
        ) as lease:
            placement = _plan(cache, lease, model, eviction)
            reused += cache.commit(lease, placement, payloads).reused
    return reused


@final
class _PlannedEviction(EvictionPolicy):
    """Evicts what is not in the plan, the least worth first; and then, if need be, the rest alike."""

    weighs_neighbours = True

    def __init__(self, model: ReuseModel) -> None:
        self._model = model
        self._learned = LearnedEviction(model)
        self.kept: frozenset[int] = frozenset()

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        cell, worth = self._learned.rank(checkpoint, freed_bytes)
        return 0, worth * self._model.rates[cell] + _KEPT * (checkpoint.serial in self.kept)

    def note_request(self, inserted: InsertResult) -> Reranking:
        self._learned.note_request(inserted)
        return Reranking(everything=True)

    def note_forgotten(self, node: Node) -> None:
        self._learned.note_forgotten(node)


def _plan(cache: PrefixCache, lease: Lease, model: ReuseModel, eviction: _PlannedEviction) -> Placement:
    """Return where the request leaves states, and tell the eviction what to keep."""
    request, situation, match = lease.request, lease.situation, lease.found.match
    expected = model.predict(request.num_tokens, request.breakpoints)
    situation.forecast = model.remembered(expected)
    branches, has_branches = _branches(situation, model)
    rate = model.fresh_rate(request.num_tokens, _generation(situation), has_branches=has_branches)
    depths, rates = with_points(expected.depths, expected.weights * rate, branches)
    deepest = request.num_tokens if request.affordable_position is None else request.affordable_position
    held = set(request.checkpoint_positions)
    wished = sorted(
        {min(depth, deepest) // request.grid * request.grid for depth in depths[rates > 0.0].tolist()} - held
    )
    wished = [position for position in wished if position > request.resume_position]
    # The tree is no part of the cache's face; nobody but a bound asks for all of it.
    places, along = places_of(cache._store.tree, match, wished, situation.prompt)
    _spread_over(along, depths.tolist(), rates.tolist())
    for point in situation.branch_points:
        if point.is_tracked and point.position <= request.resume_position:
            _at(along, point.position).rate += model.branch_rate(point, visited_now=False)
    for place in along:
        place.rate += LEAST_MASS * rate * place.can_hold
    _rate_others(places, set(map(id, along)), lease, model)
    tree, capacity_bytes = as_tree(places, cache.footprint), cache.statistics().capacity_bytes
    plan = plan_tree(tree, capacity_bytes, is_exact=False)
    chosen = [places[index] for index in plan.chosen]
    eviction.kept = frozenset(each.checkpoint.serial for each in chosen if each.checkpoint is not None)
    return Placement(tuple(sorted(each.position for each in chosen if each.is_new)))


def _spread_over(along: Sequence[Place], depths: Sequence[int], rates: Sequence[float]) -> None:
    """Give each place along a prompt the requests that diverge from there to the next."""
    for depth, rate in zip(depths, rates, strict=True):
        _at(along, depth).rate += rate


def _at(along: Sequence[Place], depth: int) -> Place:
    return along[bisect_right(along, depth, key=lambda place: place.position) - 1]


def _rate_others(places: Sequence[Place], along: set[int], lease: Lease, model: ReuseModel) -> None:
    """Give the places of earlier prompts the requests that follow those."""
    match = lease.found.match
    passed_now = {node.owner: min(node.end, match.depth) for node in match.path}
    for place in places[1:]:
        if id(place) in along:
            continue
        owner, parent = place.owner, place.parent
        assert parent is not None
        forecast = model.forecast(owner)
        passed = max(owner.passed_tokens, passed_now.get(owner, 0))
        rate = _rate_of(owner, passed, model)
        deeper = min((each.position for each in place.children if each.owner is owner), default=math.inf)
        chance = forecast.chance(place.position, deeper, passed)
        place.rate += rate * (chance + LEAST_MASS * place.can_hold)
        for point in forecast.between(place.position, deeper):
            place.rate += model.rates[model.first_branch_cell + point.cell]
        if parent.owner is not owner:
            # Who leaves the prompt before its first place resumes above.
            parent.rate += rate * forecast.chance(max(parent.position, passed), place.position, passed)


def _rate_of(owner: SeenPrompt, passed_tokens: int, model: ReuseModel) -> float:
    """Return the rate of requests that follow a prompt, once the one at hand has passed so much of it."""
    if not owner.is_tracked:
        return model.rates[NUM_AGE_BINS - 1]
    kind = _CONTINUED if continues(passed_tokens, owner.num_tokens) else _BRANCHED
    hazard_class = owner.hazard_class
    if is_overlap(passed_tokens):
        hazard_class = max(hazard_class, model._class_of(owner, kind))
    return float(model.prompts.index[hazard_class, owner.age_bin])
