"""One policy at one capacity, and the cache that it makes."""

import math
from dataclasses import dataclass
from typing import final

from milepost.counts import as_count, as_number
from milepost.errors import CapacityError, ConfigurationError
from milepost.footprint import Footprint
from milepost.policies import parse_policy
from milepost.prefix_cache import PrefixCache
from milepost.simulator.result import NOMINAL_KV_BYTES_PER_TOKEN

__all__ = ["NOMINAL_KV_BYTES_PER_TOKEN", "Setting", "grid_for", "nominal_footprint"]

_GRID_OF_TOKEN_IDS = 64
_NO_LIMIT = 1 << 30


def nominal_footprint(checkpoint_kv_tokens: float) -> Footprint:
    """Return the footprint of a model of which only the price of a checkpoint in tokens of KV is known.

    Raises:
        ConfigurationError: the price is not a finite number of at least 0.
    """
    price = as_number("checkpoint_kv_tokens", checkpoint_kv_tokens)
    return Footprint(
        # Only a price of 0 means that there is no state.
        checkpoint_bytes=max(round(price * NOMINAL_KV_BYTES_PER_TOKEN), int(price > 0)),
        kv_bytes_per_token=NOMINAL_KV_BYTES_PER_TOKEN,
    )


def grid_for(key_tokens: int, *, grid: int | None) -> int:
    """Return the grid of a trace: its own blocks, or 64 tokens where it has token ids, unless one is given.

    Raises:
        ConfigurationError: the grid given is no multiple of the trace's blocks.
    """
    if grid is None:
        return _GRID_OF_TOKEN_IDS if key_tokens == 1 else key_tokens
    grid = as_count("grid", grid, least=1)
    if grid % key_tokens:
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
        segment_tokens: KV is kept in whole segments of this many tokens; the grid unless given.
        max_checkpoints: Most checkpoints placed on one prompt, for an engine to which each is a stop.
        capture_tokens: What such a stop costs, in tokens computed.
    """

    policy: str
    capacity_kv_tokens: int
    footprint: Footprint
    segment_tokens: int | None = None
    max_checkpoints: int | None = None
    capture_tokens: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.policy, str):
            raise ConfigurationError(
                f"policy={self.policy!r}; a replay makes its own, so give a notation such as 'learned' or "
                "'balanced:8'"
            )
        capacity = as_count("capacity_kv_tokens", self.capacity_kv_tokens)
        object.__setattr__(self, "capacity_kv_tokens", capacity)
        if not isinstance(self.footprint, Footprint):
            raise ConfigurationError(f"footprint={self.footprint!r}; give a Footprint")

    @property
    def unit_bytes(self) -> int:
        """Bytes of the KV token that everything is counted in."""
        return self.footprint.kv_bytes_per_token or NOMINAL_KV_BYTES_PER_TOKEN

    @property
    def is_of_an_engine(self) -> bool:
        """Whether anything is set beside what a policy and its memory are."""
        return (self.segment_tokens, self.max_checkpoints, self.capture_tokens) != (None, None, 0)

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
        segment_tokens = self.segment_tokens or grid
        least_bytes = self.footprint.checkpoint_bytes + segment_tokens * self.footprint.kv_bytes_per_token
        if self.capacity_kv_tokens * self.unit_bytes < least_bytes:
            if not self.footprint.kv_bytes_per_token:
                raise CapacityError(
                    f"a capacity of {self.capacity_kv_tokens * self.unit_bytes:,} bytes cannot hold one "
                    f"checkpoint of {self.footprint.checkpoint_bytes:,}; give at least that"
                )
            raise CapacityError(
                f"capacity_kv_tokens={self.capacity_kv_tokens:,} cannot hold one checkpoint "
                f"({self.checkpoint_kv_tokens:,.10g}) with the KV before it (a segment of "
                f"{segment_tokens}); give at least {math.ceil(least_bytes / self.unit_bytes):,}"
            )
        return PrefixCache(
            capacity_bytes=self.capacity_kv_tokens * self.unit_bytes,
            footprint=self.footprint,
            policy=policy,
            grid=grid,
            segment_tokens=segment_tokens,
            key_tokens=key_tokens,
            max_checkpoints=_NO_LIMIT if self.max_checkpoints is None else self.max_checkpoints,
            capture_tokens=self.capture_tokens,
        )
