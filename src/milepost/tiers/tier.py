"""One slower tier: a cache of its own, whose payloads are names of what lies on its shelf.

The cache decides what stays, by its own budget and price; the shelf does as it is told. What a checkpoint
saves here is what computing costs, less what it costs to fetch. A checkpoint that is dearer to fetch than to
compute is not taken in.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, final

from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
from milepost.placement import Placement
from milepost.policies import CachePolicy
from milepost.store import Checkpoint
from milepost.tiers.handles import Handle, NewHandles, Payloads
from milepost.tiers.prefix_keys import PrefixKeys
from milepost.tiers.reading import DamagedError
from milepost.tiers.shelf import Shelf
from milepost.tiers.speed import Speed
from milepost.tiers.statistics import TierStatistics, Traffic
from milepost.tokens import KeyArray

__all__ = ["Tier"]

_log = logging.getLogger(__name__)

# The budget follows what lies on the shelf, where that takes another share of its size by this much.
_LEAST_CHANGE = 1 / 64
# Bytes that take no more than this part of their size on the shelf are no reason for a larger budget yet.
_MOST_COMPRESSION = 8.0
_LINKS_A_TURN = 4


@final
class Tier:
    """See the module.

    Args:
        name: As statistics call it.
        shelf: Where its payloads lie.
        capacity_bytes: What may lie there.
        footprint: What payloads take in memory.
        policy: Which goes first; its own, since it learns.
        grid: As of the faster tiers.
        segment_tokens: As of the faster tiers.
        computing: Cost a second that the model computes, in units of ``Footprint.costs_before``.
        clock: Measures how long a fetch takes.

    Attributes:
        cache: What lies there, and what it is worth.
        speed: Bytes a second that it gives back.
        traffic: What was fetched so far.
    """

    def __init__(
        self,
        name: str,
        shelf: Shelf,
        *,
        capacity_bytes: int,
        footprint: Footprint,
        policy: CachePolicy,
        grid: int,
        segment_tokens: int,
        computing: Speed,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = name
        self.shelf = shelf
        self.capacity_bytes = self._fitted = capacity_bytes
        self.segment_tokens = segment_tokens
        self.speed = Speed()
        self.traffic = Traffic()
        self._computing = computing
        self._clock = clock
        # Those that have copies in faster tiers.
        self._linked: deque[Handle] = deque()
        self.cache = HostedCache(
            capacity_bytes=capacity_bytes,
            footprint=footprint,
            policy=policy,
            grid=grid,
            segment_tokens=segment_tokens,
            on_drop=self._let_go,
        )

    def resize(self, capacity_bytes: int) -> None:
        """Change what may lie there."""
        self.capacity_bytes = capacity_bytes
        self._fit(least_change=0.0)

    def cost_to_fetch(self, num_bytes: int) -> float:
        """Return what the model would compute in the time that fetching ``num_bytes`` takes; 0 where either
        is unknown.
        """
        return self._computing.amount_in(self.speed.seconds_for(num_bytes))

    def bytes_to_fetch(self, lease: Lease, *, beyond: int) -> int:
        """Return what resuming where ``lease`` does takes, of which the KV before ``beyond`` is there."""
        footprint, state = self.cache.footprint, lease.state
        new_tokens = max(0, lease.resume_position - beyond)
        return (0 if state is None else state.num_bytes) + new_tokens * footprint.kv_bytes_per_token

    def read(self, handles: Sequence[Handle]) -> list[Any]:
        """Return payloads in order, None for one that cannot be read; and learn how fast that is."""
        started = self._clock()
        payloads = self.shelf.fetch([handle.key for handle in handles])
        seconds = self._clock() - started
        num_bytes = sum(handle.num_bytes for handle in handles)
        self.speed.note(num_bytes, seconds)
        self.traffic.note_fetch(num_bytes, seconds)
        return payloads

    def drop_damaged(self, lease: Lease, error: DamagedError) -> None:
        """Release ``lease``, and drop what could not be read for it, and all that needs that."""
        self.traffic.num_damaged += 1
        lease.release()
        if error.segment_end:
            self.cache.evict_beyond(lease.tokens, error.segment_end, tenant=lease.tenant)
        else:
            assert lease.checkpoint is not None
            self.cache.evict(lease.checkpoint)
        _log.warning("%s: %s, and is dropped", self.name, error)

    def commit(self, lease: Lease, positions: Sequence[int], payloads: Payloads | None) -> None:
        """Offer what was captured of a prompt; the cache decides what it keeps."""
        new = [each for each in positions if each > lease.resume_position]
        costs = self.cache.footprint.costs_before(new)
        wanted = Placement(
            tuple(
                position
                for position, cost in zip(new, costs, strict=True)
                if cost > self.cost_to_fetch(self._bytes_at(position))
            )
        )
        handles = None if payloads is None else self._handles(lease.tokens, lease.tenant, payloads)
        self.cache.commit(lease, wanted if handles else Placement(), handles)
        if handles is not None:
            self._put_away(handles, lease, num_tokens=lease.request.num_tokens)
        self._settle()

    def extend(self, lease: Lease, tokens: KeyArray, payloads: Payloads, *, unasked: bool) -> None:
        """Offer the state at the end of an answer."""
        handles = self._handles(tokens, lease.tenant, payloads)
        self.cache.extend(lease, tokens, handles, unasked=unasked)
        self._put_away(handles, lease, num_tokens=tokens.size + 1)
        self._settle()

    def adopt(self, lease: Lease, position: int, payloads: Payloads) -> None:
        """Take in what a slower tier gives back for the prompt of ``lease``, if there is room.

        Raises:
            DamagedError: it does not.
        """
        tokens = lease.tokens[:position]
        handles = self._handles(tokens, lease.tenant, payloads)
        self.cache.adopt(tokens, handles, num_tokens=lease.request.num_tokens, tenant=lease.tenant)
        self._put_away(handles, lease, num_tokens=lease.request.num_tokens)
        self._settle()

    def decline(self) -> None:
        """Note that computing takes less than a fetch would by what is known, and doubt that a little."""
        self.traffic.num_declined += 1
        self.speed.doubt()

    def touch(self, lease: Lease) -> None:
        """Note on the shelf that what ``lease`` resumes from was used."""
        if isinstance(lease.state, Handle):
            self.shelf.touch((lease.state.key,))

    def statistics(self) -> TierStatistics:
        """Return what it holds and was good for. O(1)."""
        held = self.cache.statistics()
        return TierStatistics.of(self.name, held, self.traffic, stored_bytes=self.shelf.stored_bytes)

    def link(self, lease: Lease, faster: HostedCache, held: Sequence[Checkpoint]) -> None:
        """Note which checkpoints of a ``faster`` tier could be brought back from here.

        Args:
            lease: Of this tier, on the prompt.
            faster: The tier.
            held: Its checkpoints on the same prompt.
        """
        here = {each.position: each.payload for each in lease.pinned}
        kv_bytes = self.cache.footprint.kv_bytes_per_token
        for checkpoint in held:
            handle = here.get(checkpoint.position)
            if isinstance(handle, Handle) and checkpoint.is_stored:
                if not handle.copies:
                    self._linked.append(handle)
                handle.copies[id(faster)] = faster, checkpoint
                kv_tokens = checkpoint.position - checkpoint.above_position
                cost = self.cost_to_fetch(handle.num_bytes + kv_tokens * kv_bytes)
                # What was never measured is no reason to do without.
                faster.note_copy(checkpoint, cost or math.inf)
                self._forget_gone()

    def _forget_gone(self) -> None:
        """Look through a few links, so that checkpoints gone from faster tiers do not live on. O(1)."""
        for _ in range(min(_LINKS_A_TURN, len(self._linked))):
            handle = self._linked.popleft()
            handle.copies = {key: each for key, each in handle.copies.items() if each[1].is_stored}
            if handle.copies:
                self._linked.append(handle)

    def _bytes_at(self, position: int) -> int:
        footprint = self.cache.footprint
        return footprint.checkpoint_bytes_at(position) + position * footprint.kv_bytes_per_token

    def _handles(self, tokens: KeyArray, tenant: str, payloads: Payloads) -> NewHandles:
        keys = PrefixKeys(tokens, tenant=tenant, segment_tokens=self.segment_tokens)
        return NewHandles(payloads, keys, footprint=self.cache.footprint, segment_tokens=self.segment_tokens)

    def _put_away(self, handles: NewHandles, lease: Lease, *, num_tokens: int) -> None:
        """Put on the shelf what the cache has kept: a prompt's KV first, then its states."""
        kept = {position: each for position, each in handles.states.items() if not each[0].is_dropped}
        for entry, payload, handle in handles.kept(namespace=lease.tenant, num_tokens=num_tokens):
            self.shelf.put(entry, payload)
            handle.is_shelved = True
        for checkpoint in lease.pinned:
            if checkpoint.position in kept:
                saved = checkpoint.cost - self.cost_to_fetch(self._bytes_at(checkpoint.position))
                checkpoint.cost = max(0.0, saved)

    def _let_go(self, handles: Sequence[Handle | None]) -> None:
        """Take from the shelf what the cache has dropped."""
        keys = []
        for handle in handles:
            if handle is None:
                continue
            handle.is_dropped = True
            if handle.is_shelved:
                keys.append(handle.key)
            for cache, checkpoint in handle.copies.values():
                cache.note_copy(checkpoint, math.inf)
            handle.copies.clear()
        if keys:
            self.shelf.remove(keys)

    def _settle(self) -> None:
        """Learn what the shelf could not keep, and what it takes there."""
        for _ in self.shelf.take_lost():
            # It is found missing when it is asked for; until then, less is put there.
            self.traffic.num_lost += 1
            self.cache.evict_least()
        self._fit(least_change=_LEAST_CHANGE)

    def _fit(self, *, least_change: float) -> None:
        """Have the budget, in bytes as in memory, follow how much smaller they are on the shelf."""
        raw, stored = self.shelf.raw_bytes, self.shelf.stored_bytes
        ratio = min(_MOST_COMPRESSION, raw / stored) if raw and stored else 1.0
        fitting = int(self.capacity_bytes * ratio)
        if abs(fitting - self._fitted) > least_change * self._fitted:
            self._fitted = fitting
            self.cache.resize(fitting)
        # What is put next may take a larger share of its size than what was.
        while self.shelf.stored_bytes > self.capacity_bytes and self.cache.evict_least():
            pass
