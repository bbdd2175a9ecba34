"""Whole cache policies: where checkpoints are placed, which goes first, and what both learn."""

from milepost.policies.base import CachePolicy
from milepost.policies.learned import learned
from milepost.policies.lessons_file import load_lessons, save_lessons
from milepost.policies.registry import POLICIES, describe_policies, parse_policy
from milepost.policies.situation import PlacementLimits, SituatedPlacement, Situation, place

__all__ = [
    "POLICIES",
    "CachePolicy",
    "PlacementLimits",
    "SituatedPlacement",
    "Situation",
    "describe_policies",
    "learned",
    "load_lessons",
    "parse_policy",
    "place",
    "save_lessons",
]
