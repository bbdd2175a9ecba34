"""What a prefix cache is made with, each value read for what it plainly means, or refused by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from milepost.byte_size import parse_bytes
from milepost.counts import as_count
from milepost.errors import CapacityError, ConfigurationError
from milepost.footprint import Footprint
from milepost.placement import PlacementPolicy
from milepost.policies import CachePolicy, parse_policy
from milepost.store import PrefixStore

__all__ = ["CacheOptions"]

# A remembered token takes 4 bytes, so history takes at most about a sixty-fourth of the budget beside it.
_BUDGET_BYTES_PER_HISTORY_TOKEN = 256
_LEAST_HISTORY_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """See the arguments of :class:`milepost.prefix_cache.PrefixCache`, which these are once checked."""

    capacity_bytes: int
    footprint: Footprint
    policy: CachePolicy
    grid: int
    segment_tokens: int
    history_tokens: int
    key_tokens: int
    max_checkpoints: int
    capture_tokens: int

    @classmethod
    def checked(
        cls,
        *,
        capacity_bytes: int | str,
        footprint: Footprint,
        policy: CachePolicy | PlacementPolicy | str,
        grid: int,
        segment_tokens: int | None,
        history_tokens: int | None,
        key_tokens: int,
        max_checkpoints: int,
        capture_tokens: int,
    ) -> Self:
        """Return the options as the cache uses them.

        Raises:
            ConfigurationError: an option breaks its rule.
            CapacityError: the budget cannot hold one checkpoint at the first grid position.
        """
        capacity_bytes = parse_bytes(capacity_bytes)
        _require_footprint(footprint)
        cache_policy = _read_policy(policy)
        segment_tokens = grid if segment_tokens is None else segment_tokens
        grid, segment_tokens, key_tokens = _lengths(grid, segment_tokens, key_tokens)
        _require_capacity(capacity_bytes, footprint, cache_policy, segment_tokens)
        if history_tokens is None:
            history_tokens = max(_LEAST_HISTORY_TOKENS, capacity_bytes // _BUDGET_BYTES_PER_HISTORY_TOKEN)
        return cls(
            capacity_bytes=capacity_bytes,
            footprint=footprint,
            policy=cache_policy,
            grid=grid,
            segment_tokens=segment_tokens,
            history_tokens=as_count("history_tokens", history_tokens),
            key_tokens=key_tokens,
            max_checkpoints=as_count("max_checkpoints", max_checkpoints, least=1),
            capture_tokens=as_count("capture_tokens", capture_tokens),
        )

    def new_store(
        self, *, on_drop: Callable[[Sequence[Any]], None] | None, clock: Callable[[], float]
    ) -> PrefixStore:
        """Return an empty store, which tells ``on_drop`` of the payloads that leave it."""
        footprint, policy = self.footprint, self.policy
        return PrefixStore(
            capacity_bytes=self.capacity_bytes,
            segment_tokens=self.segment_tokens,
            kv_bytes_per_token=footprint.kv_bytes_per_token,
            is_stateless=footprint.is_stateless,
            eviction=policy.eviction,
            history_tokens=self.history_tokens,
            key_tokens=self.key_tokens,
            state_bytes=footprint.checkpoint_bytes,
            keeps_kv=policy.keeps_kv,
            state_share=policy.state_share,
            on_drop=on_drop,
            clock=clock,
        )


def _read_policy(policy: Any) -> CachePolicy:
    if isinstance(policy, str):
        return parse_policy(policy)
    if isinstance(policy, CachePolicy):
        return policy
    if isinstance(policy, PlacementPolicy):
        return CachePolicy(policy)
    raise ConfigurationError(
        f"policy={policy!r}; give a notation such as 'learned' or 'balanced:8', a CachePolicy, or an "
        "instance of a PlacementPolicy"
    )


def _require_footprint(footprint: Any) -> None:
    if not isinstance(footprint, Footprint):
        raise ConfigurationError(
            f"footprint={footprint!r}; give Footprint(checkpoint_bytes=..., kv_bytes_per_token=...), or "
            "Footprint.from_config of a model's configuration"
        )


def _lengths(grid: Any, segment_tokens: Any, key_tokens: Any) -> tuple[int, int, int]:
    key_tokens = as_count("key_tokens", key_tokens, least=1)
    grid = as_count("grid", grid, least=1)
    segment_tokens = as_count("segment_tokens", segment_tokens, least=1)
    if segment_tokens % grid or grid % key_tokens:
        raise ConfigurationError(
            f"grid={grid}, segment_tokens={segment_tokens}, key_tokens={key_tokens}; a segment is a whole "
            "number of grid steps, and a grid step of keys"
        )
    return grid, segment_tokens, key_tokens


def _require_capacity(
    capacity_bytes: int, footprint: Footprint, policy: CachePolicy, segment_tokens: int
) -> None:
    least_bytes = footprint.checkpoint_bytes + segment_tokens * footprint.kv_bytes_per_token
    if capacity_bytes < least_bytes:
        raise CapacityError(
            f"capacity_bytes={capacity_bytes:,} is smaller than one checkpoint with its KV; "
            f"give at least {least_bytes:,} bytes for this model"
        )
    share = policy.state_share
    if (
        share is not None
        and not footprint.is_stateless
        and share * capacity_bytes < footprint.checkpoint_bytes
    ):
        raise CapacityError(
            f"state_share={share:g} of capacity_bytes={capacity_bytes:,} is smaller than one checkpoint "
            f"of {footprint.checkpoint_bytes:,} bytes; give more of either"
        )
