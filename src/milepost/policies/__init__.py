"""Whole cache policies: where checkpoints are placed, which goes first, and what both learn."""

from milepost.policies.base import CachePolicy
from milepost.policies.learned import learned
from milepost.policies.registry import POLICIES, describe_policies, parse_policy

__all__ = ["POLICIES", "CachePolicy", "describe_policies", "learned", "parse_policy"]
