"""Serving remembered prompts once more under another policy, for a policy that tunes itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, final

import numpy as np

from milepost.accounting import CacheStatistics
from milepost.cache_options import CacheOptions
from milepost.lease import Lease
from milepost.placement import Placement
from milepost.policies import CachePolicy
from milepost.policies.base import PromptRecord
from milepost.store import ContentlessPayloads, PayloadSource
from milepost.tokens import KeyArray, key_dtype

__all__ = ["PromptReplay"]


class _Cache(Protocol):
    def acquire(self, tokens: KeyArray, *, num_tokens: int, tenant: str) -> Lease: ...
    def plan(self, lease: Lease) -> Placement: ...
    def commit(self, lease: Lease, placement: Placement, source: PayloadSource) -> Any: ...
    def statistics(self) -> CacheStatistics: ...


@final
@dataclass(frozen=True, slots=True)
class PromptReplay:
    """Called with a policy and prompts, returns how many tokens were reused on an empty cache of one make.

    Attributes:
        options: How the cache is made, but for its policy.
        make_cache: Makes it.
    """

    options: CacheOptions
    make_cache: Callable[..., _Cache]

    def __call__(self, policy: CachePolicy, prompts: Sequence[PromptRecord]) -> int:
        """Serve ``prompts`` in order. O(keys of all of them)."""
        options = self.options
        alike = {field.name: getattr(options, field.name) for field in fields(options)}
        cache = self.make_cache(**{**alike, "policy": policy})
        source = ContentlessPayloads(options.footprint, segment_tokens=options.segment_tokens)
        tenants: dict[object, str] = {}
        for prompt in prompts:
            tenant = tenants.setdefault(prompt.tenant, str(len(tenants)))
            keys = np.frombuffer(prompt.keys, key_dtype(options.key_tokens))
            with cache.acquire(keys, num_tokens=prompt.num_tokens, tenant=tenant) as lease:
                cache.commit(lease, cache.plan(lease), source)
        return cache.statistics().reused
