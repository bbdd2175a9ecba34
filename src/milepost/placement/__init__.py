"""Which positions of a prompt deserve a checkpoint: the contract, the exact planner and the policies."""

from milepost.placement.base import CostFunction, Placement, PlacementPolicy, PlacementRequest, as_placement
from milepost.placement.heuristics import Balanced, Dense, Dyadic, NoCheckpoints, Periodic, SquareRoot
from milepost.placement.histogram import HistogramDP
from milepost.placement.junctions import Junction, PromptTail, TailAndJunction
from milepost.placement.offsets import Offsets
from milepost.placement.planner import BudgetPlans, plan_budgets, plan_priced

__all__ = [
    "Balanced",
    "BudgetPlans",
    "CostFunction",
    "Dense",
    "Dyadic",
    "HistogramDP",
    "Junction",
    "NoCheckpoints",
    "Offsets",
    "Periodic",
    "Placement",
    "PlacementPolicy",
    "PlacementRequest",
    "PromptTail",
    "SquareRoot",
    "TailAndJunction",
    "as_placement",
    "plan_budgets",
    "plan_priced",
]
