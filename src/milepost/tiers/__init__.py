"""A chain of caches on ever slower memory, one worth per byte deciding what lies where."""

from milepost.tiers.lessons import LessonsKeeper, experienced
from milepost.tiers.shelf import HeldShelf, Shelf
from milepost.tiers.speed import Speed
from milepost.tiers.statistics import TierStatistics, Traffic
from milepost.tiers.tier import Tier
from milepost.tiers.tiered_cache import TieredCache

__all__ = [
    "HeldShelf",
    "LessonsKeeper",
    "Shelf",
    "Speed",
    "Tier",
    "TierStatistics",
    "TieredCache",
    "Traffic",
    "experienced",
]
