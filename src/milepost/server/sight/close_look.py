"""A closer look at the engine between two turns, for the live page: bounded, whatever the cache holds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from milepost.byte_size import format_bytes
from milepost.engines.engine import Engine
from milepost.overlap import OverlapModel
from milepost.policies.reuse_model import ReuseModel
from milepost.server.sight.look import Look, look_at
from milepost.store import Outline
from milepost.tiers import TieredCache

__all__ = ["CloseLook", "look_closely_at"]

_MOST_NODES = 48
# Distances by powers of two, from 64 tokens on.
_FIRST_BIN_TOKENS, _NUM_BINS = 64, 16
_COORDINATES = ("from the start", "from the end")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseLook:
    """See the module.

    Attributes:
        look: What metrics tell.
        outline: Of the tree.
        overlaps: Where requests were seen to part from earlier prompts; None where the policy learns nothing.
        facts: Of the model, in words.
    """

    look: Look
    outline: Outline
    overlaps: Mapping[str, Any] | None
    facts: Mapping[str, str]


def look_closely_at(engine: Engine) -> CloseLook:
    """Return it; what it takes is in docs/watching.md."""
    cache = engine.cache
    fastest = cache.fastest if isinstance(cache, TieredCache) else cache
    slower = [tier.cache for tier in cache.slower] if isinstance(cache, TieredCache) else []
    lessons = fastest.policy.lessons
    return CloseLook(
        look=look_at(engine),
        outline=fastest.outline(slower=slower, most_nodes=_MOST_NODES),
        overlaps=_overlaps(lessons.overlap) if isinstance(lessons, ReuseModel) else None,
        facts={
            "family": engine.driver.family,
            "numerics": str(engine.numerics),
            "states": str(engine.capture),
            "checkpoint": format_bytes(engine.footprint.checkpoint_bytes),
            "KV of 1,000 tokens": format_bytes(1000 * engine.footprint.kv_bytes_per_token),
        },
    )


def _overlaps(model: OverlapModel) -> Mapping[str, Any]:
    """Return the learned histograms, in bins that double."""
    exported = model.export()["components"]
    return {
        "num_shared": model.num_shared,
        "sharing_rate": round(model.sharing_rate, 4),
        "coordinates": [
            {"name": name, "share": round(share, 4), "bins": _bins(*histogram)}
            for name, share, (_, histogram) in zip(
                _COORDINATES, model.coordinate_shares, exported, strict=True
            )
        ],
    }


def _bins(values: Iterable[float], weights: Iterable[float]) -> list[dict[str, Any]]:
    sums = [0.0] * _NUM_BINS
    for value, weight in zip(values, weights, strict=True):
        sums[min(_NUM_BINS - 1, (int(value) // _FIRST_BIN_TOKENS).bit_length())] += weight
    total = sum(sums) or 1.0
    return [
        {"from_tokens": _FIRST_BIN_TOKENS << (number - 1) if number else 0, "share": round(each / total, 4)}
        for number, each in enumerate(sums)
    ]
