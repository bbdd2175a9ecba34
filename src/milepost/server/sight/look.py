"""A look at the engine between two turns: what its cache holds and was good for. O(tiers)."""

from collections.abc import Mapping
from dataclasses import dataclass

from milepost.accounting import CacheStatistics
from milepost.disk import DiskShelf
from milepost.engines.audit import AuditStatistics
from milepost.engines.engine import Engine
from milepost.policies import CachePolicy
from milepost.policies.reuse_model import ReuseModel
from milepost.tiers import Shelf, TieredCache, TierStatistics

__all__ = ["Look", "TierLook", "look_at", "price_of"]

# Prices are told in tokens of a prompt of this length.
_TYPICAL_TOKENS = 1024
_NO_COUNTS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLook:
    """One tier.

    Attributes:
        statistics: What it holds and was good for.
        price: What a byte of it is worth: cost saved a request, in tokens computed or FLOPs as the model's
            footprint has them; None where its policy has no price.
        shelf: What its shelf counts, by name; empty where it has none.
    """

    statistics: TierStatistics
    price: float | None
    shelf: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """See the module.

    Attributes:
        totals: The account of all prompts.
        tiers: From the fastest on.
        audits: What hits that were computed again showed.
        token_cost: What a token costs to compute, in the units of prices.
    """

    totals: CacheStatistics
    tiers: tuple[TierLook, ...]
    audits: AuditStatistics
    token_cost: float


def look_at(engine: Engine) -> Look:
    """Return what the engine's cache holds now."""
    cache = engine.cache
    slower = cache.slower if isinstance(cache, TieredCache) else ()
    policies = [cache.policy, *(tier.cache.policy for tier in slower)]
    shelves = [_NO_COUNTS, *(_counts(tier.shelf) for tier in slower)]
    tiers = tuple(
        TierLook(statistics=statistics, price=price_of(policy), shelf=shelf)
        for statistics, policy, shelf in zip(engine.tiers(), policies, shelves, strict=True)
    )
    (cost,) = engine.footprint.costs_before((_TYPICAL_TOKENS,))
    return Look(
        totals=cache.statistics(),
        tiers=tiers,
        audits=engine.audits,
        token_cost=cost / _TYPICAL_TOKENS,
    )


def price_of(policy: CachePolicy) -> float | None:
    """Return what a policy that has prices takes a byte to be worth."""
    return policy.lessons.price if isinstance(policy.lessons, ReuseModel) else None


def _counts(shelf: Shelf) -> Mapping[str, int]:
    return shelf.counts() if isinstance(shelf, DiskShelf) else _NO_COUNTS
