"""One policy at one capacity, and the cache that it makes."""

import math
from dataclasses import dataclass
from typing import final

from milepost.errors import CapacityError, ConfigurationError
from milepost.footprint import Footprint
from milepost.policies import parse_policy
from milepost.prefix_cache import PrefixCache

__all__ = ["NOMINAL_KV_BYTES_PER_TOKEN", "Setting", "grid_for", "nominal_footprint"]

# Where only ratios are known, and where a model keeps no KV. A power of two keeps byte arithmetic exact; the
# size, that of a hybrid model of some billion parameters, sets how much history a cache keeps by default.
NOMINAL_KV_BYTES_PER_TOKEN = 16_384
_GRID_OF_TOKEN_IDS = 64


def nominal_footprint(checkpoint_kv_tokens: float) -> Footprint:
    """Return the footprint of a model of which only the price of a checkpoint in tokens of KV is known.

    Raises:
        ConfigurationError: the price is not a finite number of at least 0.
    """
    if not math.isfinite(checkpoint_kv_tokens) or checkpoint_kv_tokens < 0:
        raise ConfigurationError(
            f"checkpoint_kv_tokens={checkpoint_kv_tokens}; give a finite number of at least 0 (0: no state)"
        )
    return Footprint(
        checkpoint_bytes=round(checkpoint_kv_tokens * NOMINAL_KV_BYTES_PER_TOKEN),
        kv_bytes_per_token=NOMINAL_KV_BYTES_PER_TOKEN,
    )


def grid_for(key_tokens: int, *, grid: int | None) -> int:
    """Return the grid of a trace: its own blocks, or 64 tokens where it has token ids, unless one is given.

    Raises:
        ConfigurationError: the grid given is no multiple of the trace's blocks.
    """
    if grid is None:
        return _GRID_OF_TOKEN_IDS if key_tokens == 1 else key_tokens
    if grid < 1 or grid % key_tokens:
        raise ConfigurationError(
            f"grid={grid} on a trace with blocks of {key_tokens} tokens; give a multiple of the block"
        )
    return grid


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one run is made with.

    Attributes:
        policy: Its notation.
        capacity_kv_tokens: The one budget, in tokens of KV (of 16 KiB where the model keeps none).
        footprint: What a checkpoint and a token of KV cost.
    """

    policy: str
    capacity_kv_tokens: int
    footprint: Footprint

    @property
    def unit_bytes(self) -> int:
        """Bytes of the KV token that everything is counted in."""
        return self.footprint.kv_bytes_per_token or NOMINAL_KV_BYTES_PER_TOKEN

    @property
    def checkpoint_kv_tokens(self) -> float:
        """Price of a checkpoint."""
        return self.footprint.checkpoint_bytes / self.unit_bytes

    def build_cache(self, *, key_tokens: int, grid: int) -> PrefixCache:
        """Return a new cache for a trace with such keys.

        Raises:
            ConfigurationError: the policy's notation has a mistake.
            CapacityError: the budget cannot hold one checkpoint.
        """
        policy = parse_policy(self.policy)
        least_bytes = self.footprint.checkpoint_bytes + grid * self.footprint.kv_bytes_per_token
        if self.capacity_kv_tokens * self.unit_bytes < least_bytes:
            raise CapacityError(
                f"capacity_kv_tokens={self.capacity_kv_tokens:,} cannot hold one checkpoint "
                f"({self.checkpoint_kv_tokens:,.10g}) with the KV before it (a grid step of {grid}); give at "
                f"least {math.ceil(least_bytes / self.unit_bytes):,}"
            )
        return PrefixCache(
            capacity_bytes=self.capacity_kv_tokens * self.unit_bytes,
            footprint=self.footprint,
            policy=policy,
            grid=grid,
            key_tokens=key_tokens,
        )
