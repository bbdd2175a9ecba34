"""What an engine keeps its checkpoints in: one cache, or a chain of them down to a folder on disk."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from milepost.byte_size import parse_bytes
from milepost.disk import DiskShelf
from milepost.engines.host_payloads import host_shelf
from milepost.engines.opening import checked_policy
from milepost.engines.packing import PayloadCodec
from milepost.engines.served_model import ServedModel
from milepost.errors import ConfigurationError
from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
from milepost.placement import PlacementPolicy
from milepost.policies import CachePolicy, learned, parse_policy
from milepost.tiers import (
    LessonsKeeper,
    Shelf,
    Speed,
    Tier,
    TieredCache,
    TierStatistics,
    Traffic,
    experienced,
)

__all__ = ["AnyCache", "CacheRequest", "Keeping", "Lasting", "keep_in"]

AnyCache: TypeAlias = HostedCache | TieredCache

_DISK_CAPACITY = "16GiB"
# What the fastest tier is called, unless it is a device's.
_MEMORY = "memory"
_LASTING_PREFIX = "kept:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """How states of the model as it was opened are called, by this process and the next.

    Attributes:
        fingerprint: What makes them interchangeable.
        pseudonym: Returns what stands for a tenant.
    """

    fingerprint: bytes
    pseudonym: Callable[[str], str]

    def namespace(self, tenant: str, *, rotated_for: int) -> str:
        """Return who a tenant is to the caches."""
        return f"{_LASTING_PREFIX}{rotated_for}:{self.pseudonym(tenant) if tenant else ''}"

    @staticmethod
    def names(namespace: str) -> bool:
        """Return whether ``namespace`` is one of these."""
        return namespace.startswith(_LASTING_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """A cache, and what lasts in it.

    Attributes:
        cache: The engine's own.
        lasting: How what lasts is called; None where nothing does.
    """

    cache: AnyCache
    lasting: Lasting | None = None

    def note_computed(self, lease: Lease, seconds: float) -> None:
        """Learn how long the rest of a prompt took to compute: slower tiers are weighed against that."""
        if isinstance(self.cache, TieredCache):
            self.cache.note_computed(lease, seconds)

    def reused_by_tier(self, lease: Lease) -> dict[str, int]:
        """Return how many tokens ``lease`` resumes after, by the tier that had them."""
        if isinstance(self.cache, TieredCache):
            return self.cache.reused_by_tier(lease)
        return {_MEMORY: lease.resume_position}

    def tiers(self) -> tuple[TierStatistics, ...]:
        """Return what each tier holds and was good for, from the fastest on."""
        if isinstance(self.cache, TieredCache):
            return self.cache.tiers()
        held = self.cache.statistics()
        return (TierStatistics.of(_MEMORY, held, Traffic(num_hits=held.num_hits, reused_tokens=held.reused)),)

    def close(self) -> None:
        """Let go of what outlives the process. Harmless when done twice."""
        if isinstance(self.cache, TieredCache):
            self.cache.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRequest:
    """What was asked for; see ``Engine.open``."""

    capacity: int | str
    policy: str | CachePolicy | PlacementPolicy
    cache_dir: str | Path | None = None
    disk_capacity: int | str | None = None
    host_capacity: int | str | None = None

    def check(self) -> None:
        """Raise ``ConfigurationError`` where an option breaks its rule, before a model is loaded."""
        checked_policy(self.policy)
        parse_bytes(self.capacity)
        for capacity in (self.disk_capacity, self.host_capacity):
            if capacity is not None:
                parse_bytes(capacity)
        if self.cache_dir is not None and not isinstance(self.cache_dir, str | Path):
            raise ConfigurationError(f"cache_dir={self.cache_dir!r}; give the path of a folder")
        if self.disk_capacity is not None and self.cache_dir is None:
            raise ConfigurationError(
                f"disk_capacity={self.disk_capacity!r} without a folder; give cache_dir too, or leave it out"
            )


def keep_in(served: ServedModel, asked: CacheRequest) -> Keeping:
    """Return an empty cache for a model that was opened; or, with a folder, one that knows what lies there.

    Raises:
        CapacityError: the budget holds not even one checkpoint.
        ConfigurationError: an option breaks its rule, the folder cannot be used, or the model cannot be told
            from others in another process.
        MissingExtraError: a library for the folder is not installed.
    """
    is_on_host = served.driver.device.type == "cpu"
    if asked.host_capacity is not None and is_on_host:
        raise ConfigurationError(
            f"host_capacity={asked.host_capacity!r} of a model on the CPU, whose memory is the host's; give "
            "all of it as capacity"
        )
    if asked.cache_dir is None and asked.host_capacity is None:
        return Keeping(cache=served.new_cache(capacity=asked.capacity, policy=checked_policy(asked.policy)))
    # Refused before a folder is touched.
    for capacity in (asked.capacity, asked.host_capacity, asked.disk_capacity):
        if capacity is not None:
            served.new_cache(capacity=capacity, policy=learned())
    facts = served.persistent_facts()
    shelves: list[tuple[str, Shelf, int]] = []
    codec = PayloadCodec(served.driver)
    if asked.host_capacity is not None:
        host_bytes = parse_bytes(asked.host_capacity)
        shelves.append(("host", host_shelf(served.driver.host_memory(host_bytes)), host_bytes))
    if asked.cache_dir is None:
        lasting = Lasting(fingerprint=facts.digest, pseudonym=lambda tenant: tenant)
        chain = _chain(served, asked, shelves, folder=None)
        return Keeping(cache=chain, lasting=lasting)
    capacity_bytes = parse_bytes(_DISK_CAPACITY if asked.disk_capacity is None else asked.disk_capacity)
    folder = Path(asked.cache_dir).expanduser()
    disk = DiskShelf.open(folder, facts=facts, capacity_bytes=capacity_bytes, codec=codec)
    try:
        shelves.append(("disk", disk, capacity_bytes))
        chain = _chain(served, asked, shelves, folder=disk.folder)
        chain.restore()
    except BaseException:
        disk.close()
        raise
    return Keeping(cache=chain, lasting=Lasting(fingerprint=facts.digest, pseudonym=disk.pseudonym))


def _chain(
    served: ServedModel,
    asked: CacheRequest,
    shelves: list[tuple[str, Shelf, int]],
    *,
    folder: Path | None,
) -> TieredCache:
    name = _MEMORY if served.driver.device.type == "cpu" else "device"
    computing = Speed()
    files: dict[Path, CachePolicy] = {}

    def policy_of(tier: str, new_policy: Callable[[], CachePolicy]) -> CachePolicy:
        if folder is None:
            return new_policy()
        path = folder / f"{tier}.lessons.json"
        files[path] = experienced(new_policy, path)
        return files[path]

    given = asked.policy
    policy = policy_of(name, lambda: parse_policy(given)) if isinstance(given, str) else given
    slower = [
        Tier(
            tier,
            shelf,
            capacity_bytes=capacity_bytes,
            footprint=served.footprint,
            policy=policy_of(tier, learned),
            grid=served.cuts.grid,
            segment_tokens=served.segment_tokens,
            computing=computing,
        )
        for tier, shelf, capacity_bytes in shelves
    ]
    return TieredCache(
        served.new_cache(capacity=asked.capacity, policy=policy),
        slower,
        name=name,
        is_lasting=Lasting.names,
        computing=computing,
        lessons=LessonsKeeper(files, clock=time.monotonic),
    )
