"""Policies of every kind, each with settings from sparse to dense: what there is to be had on a log."""

from milepost.policies import POLICIES
from milepost.recommend.engine import Candidate
from milepost.recommend.situation import Situation

__all__ = ["CLAIRVOYANT", "family_candidates"]

# Knows the future: what it reuses is about what anyone could.
CLAIRVOYANT = "clairvoyant"
_WITHOUT_OPTIONS = (
    "learned",
    "none",
    "tail",
    "junction",
    "tail+junction",
    "sqrt",
    "dyadic",
    "vllm",
    "sglang",
    "marconi",
    CLAIRVOYANT,
)
_COUNTS = (1, 2, 4, 8)
_PLANNED_COUNTS = (2, 8)
_INTERVALS = (512, 1024, 2048, 4096, 8192)


def family_candidates(situation: Situation) -> list[Candidate]:
    """Return the policies to compare with; the learned one first."""
    notations = [name for name in _WITHOUT_OPTIONS if name in POLICIES]
    notations += [f"balanced:{count}" for count in _COUNTS]
    notations += [f"histogram-dp:{count}" for count in _PLANNED_COUNTS]
    on_grid = dict.fromkeys(-(-interval // situation.grid) * situation.grid for interval in _INTERVALS)
    notations += [f"dense:{interval}" for interval in on_grid]
    notations += [f"periodic:{interval}" for interval in on_grid]
    return [
        Candidate(policy=notation, grid=situation.grid, footprint=situation.footprint)
        for notation in notations
    ]
