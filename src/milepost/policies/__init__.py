"""Whole cache policies: where checkpoints are placed, which goes first, and what both learn."""

from milepost.policies.base import CachePolicy
from milepost.policies.learned import learned
from milepost.policies.lessons_file import load_lessons, save_lessons
from milepost.policies.lessons_summary import LessonsSummary
from milepost.policies.merged_lessons import merge_lessons
from milepost.policies.registry import POLICIES, describe_policies, parse_policy
from milepost.policies.situation import PlacementLimits, SituatedPlacement, Situation, place

__all__ = [
    "POLICIES",
    "CachePolicy",
    "LessonsSummary",
    "PlacementLimits",
    "SituatedPlacement",
    "Situation",
    "describe_policies",
    "learned",
    "load_lessons",
    "merge_lessons",
    "parse_policy",
    "place",
    "save_lessons",
]
