"""The default policy: learn where prompts part, then place as many checkpoints as are worth their memory.

How many is settled by one comparison. A prompt of ``num_tokens`` tokens of KV with one checkpoint takes
``num_tokens + checkpoint_kv_tokens`` of memory and saves ``reach`` when it is shared. A further checkpoint
takes memory from prompts like it, so it has to save at least its share::

    price = pressure * reach * checkpoint_kv_tokens / (num_tokens + checkpoint_kv_tokens)

``pressure`` is by how much the hits fall, in per cent, when the memory falls by one per cent. Everything is
relative to what the prompt saves at all, so the rate of sharing and the unit of cost cancel out.

A prompt that resumes from a checkpoint may make that one superfluous: the new checkpoint takes its place
instead of adding to it. So the first new one pays only for the share of requests that still need the old one,
those that part between the two.
"""

import math
from typing import final

import numpy as np

from milepost.errors import ConfigurationError
from milepost.overlap import OverlapDistribution, OverlapModel
from milepost.placement.admissible import admissible
from milepost.placement.base import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.junctions import TailAndJunction
from milepost.placement.planner import BudgetPlans, compile_kernels, plan_budgets, plan_priced

__all__ = ["Planned"]


# The last part of a prompt that its own question may fill, as long as nothing is known of prompts like it.
_TAIL_SHARE = 16


@final
class Planned(PlacementPolicy):
    """The exact plan for a learned distribution of overlap depths, at one price a checkpoint.

    Until ``warmup`` requests have shared something it places tail and junction, as engines do, and one state
    a sixteenth of the prompt before its end. From then on the overlap model decides: for questions after a
    document, one checkpoint before the questions; for conversations, the tail; for shared instructions, the
    place where they end. A junction of the prompt itself is always among the candidates, with the chance of a
    return that junctions have had lately.

    Of a plan larger than ``max_checkpoints``, the best plan of that size is taken.

    Args:
        pressure: Relative loss of hits for a relative loss of memory; 0 where memory is plentiful.
        least_gain: A checkpoint that adds less than this share of what the prompt saves is not placed, even
            where it costs nothing.
        warmup: Sharings to see before the model is trusted.
        model: The overlap model; a fresh one if None.
    """

    __slots__ = ("_before_evidence", "_least_gain", "_model", "_pressure", "_warmup")

    def __init__(
        self,
        *,
        pressure: float = 0.5,
        least_gain: float = 0.01,
        warmup: int = 8,
        model: OverlapModel | None = None,
    ) -> None:
        if not pressure >= 0.0:
            raise ConfigurationError(f"pressure={pressure}; give 0 (memory is plentiful) or more")
        if not 0.0 <= least_gain < 1.0:
            raise ConfigurationError(f"least_gain={least_gain}; give a share in [0, 1)")
        if warmup < 0:
            raise ConfigurationError(f"warmup={warmup}; give 0 or more sharings")
        compile_kernels()
        self._pressure = pressure
        self._least_gain = least_gain
        self._warmup = warmup
        self._model = OverlapModel() if model is None else model
        self._before_evidence = TailAndJunction()

    @property
    def model(self) -> OverlapModel:
        """What has been learned so far."""
        return self._model

    def observe(self, request: PlacementRequest) -> None:
        """Learn where this request parted from the earlier prompt it shares most with. O(support)."""
        self._model.observe(request.overlap_depth, _shared_prompt_tokens(request))

    def place(self, request: PlacementRequest) -> Placement:
        """Return the positions that are worth their memory. O(S log S) for a support of S depths."""
        if self._model.num_shared < self._warmup:
            return self._place_before_evidence(request)
        expected = self._model.predict(request.num_tokens, junction_depth=self._junction_depth(request))
        budget = max(0, request.max_checkpoints)
        single = self._budgets(request, expected, 1)
        first = single.placement(1).positions
        if not first:
            return Placement()
        base = request.resume_position
        to_base, to_first = expected.depths.searchsorted((base, first[0]))
        use_base = float(expected.weights[to_base:].sum())
        need_base = float(expected.weights[to_base:to_first].sum()) / use_base if base else 1.0
        reach = single.saving(1) + use_base * _cost_up_to(request)
        memory = _memory_share(request)
        if single.saving(1) <= reach * max(self._pressure * memory * need_base, self._least_gain):
            return Placement()
        plan = plan_priced(
            expected.depths,
            expected.weights,
            price_per_checkpoint=reach * max(self._pressure * memory, self._least_gain),
            cost=request.cost,
            grid=request.grid,
            base=base,
        )
        if len(plan.positions) > budget:
            plan = self._budgets(request, expected, budget).placement(budget)
        return admissible(request, plan.positions or first)

    def _place_before_evidence(self, request: PlacementRequest) -> Placement:
        """Tail and junction, and one state a little before the tail: if prompts part in their last question,
        it costs that state to find out, instead of a whole prompt computed twice.
        """
        engines = self._before_evidence.place(request).positions
        before_tail = request.num_tokens - request.num_tokens // _TAIL_SHARE
        return admissible(request, (*engines, before_tail))

    def _junction_depth(self, request: PlacementRequest) -> int | None:
        parts = self._model.is_junction(request.overlap_depth, _shared_prompt_tokens(request))
        return request.overlap_depth if parts else None

    def _budgets(self, request: PlacementRequest, expected: OverlapDistribution, budget: int) -> BudgetPlans:
        return plan_budgets(
            expected.depths,
            expected.weights,
            max_budget=budget,
            cost=request.cost,
            grid=request.grid,
            base=request.resume_position,
        )


def _cost_up_to(request: PlacementRequest) -> float:
    """Return what the resumed part of the prompt would have cost."""
    position = request.resume_position
    return float(position) if request.cost is None else float(request.cost(np.array([position]))[0])


def _memory_share(request: PlacementRequest) -> float:
    """Return the share of a prompt's memory that one checkpoint takes: 1 where its KV is free."""
    price = request.checkpoint_kv_tokens
    return 1.0 if math.isinf(price) else price / (request.num_tokens + price)


def _shared_prompt_tokens(request: PlacementRequest) -> int:
    """Return the length of the earlier prompt; where it is unknown, this one's stands in."""
    return request.num_tokens if request.matched_num_tokens is None else request.matched_num_tokens
