"""A chain of caches, from the fastest to the slowest: what memory drops, a slower tier may still have.

Every tier is a :class:`~milepost.hosted_cache.HostedCache` with its own budget, policy and laws; what is
learned, it learns from the same requests. A request is looked up in all of them. Where a slower one has a
deeper checkpoint, and fetching it costs less than computing the difference, it is fetched and adopted by the
faster ones. What is captured is offered to all at once, so that nothing has to be moved when a faster one
drops it, and an interrupted process loses only what was not written yet.

In a faster tier, a checkpoint that also lies below saves no more than it costs to bring back; in a slower
one, no more than is left of what computing costs after the fetch. So one worth per byte says what stays
where.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import final
from weakref import WeakKeyDictionary

from milepost.accounting import CacheStatistics, RequestReport
from milepost.errors import ConfigurationError
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.lease import Lease
from milepost.pins import PinLike
from milepost.placement import Placement
from milepost.policies import CachePolicy
from milepost.store import PayloadSource, require_source
from milepost.tiers.handles import Payloads
from milepost.tiers.lessons import LessonsKeeper
from milepost.tiers.reading import DamagedError, Reading
from milepost.tiers.restoring import restore_tier
from milepost.tiers.speed import Speed
from milepost.tiers.statistics import TierStatistics, Traffic
from milepost.tiers.tier import Tier
from milepost.tokens import TokenLike, as_tokens

__all__ = ["TieredCache"]


@final
class TieredCache:
    """See the module. It is used as its fastest tier is.

    Args:
        fastest: The tier that requests resume from; of token ids.
        slower: The others, from the fastest on.
        name: What statistics call the fastest.
        is_lasting: Says whether what a tenant has may lie in slower tiers.
        computing: Cost a second that the model computes, the very object that the tiers were given.
        lessons: Keeps what the policies learn; None where that ends with the process.

    Raises:
        ConfigurationError: there is no slower tier.
    """

    def __init__(
        self,
        fastest: HostedCache,
        slower: Sequence[Tier],
        *,
        name: str = "memory",
        is_lasting: Callable[[str], bool] = lambda tenant: True,
        computing: Speed,
        lessons: LessonsKeeper | None = None,
    ) -> None:
        if not slower:
            raise ConfigurationError("a chain of one tier; use that tier's HostedCache alone")
        self.fastest = fastest
        self.slower = tuple(slower)
        self.name = name
        self._is_lasting = is_lasting
        self._computing = computing
        self._lessons = lessons
        self._is_closed = False
        # What was fetched for a request: from which tier, and how many tokens deeper.
        self._fetched: WeakKeyDictionary[Lease, tuple[Tier, int]] = WeakKeyDictionary()

    @property
    def policy(self) -> CachePolicy:
        """That of the fastest tier."""
        return self.fastest.policy

    @property
    def grid(self) -> int:
        """Checkpoints sit at multiples of this many tokens."""
        return self.fastest.grid

    @property
    def footprint(self) -> Footprint:
        """What a checkpoint and a token of KV cost."""
        return self.fastest.footprint

    @property
    def stored_bytes(self) -> int:
        """Bytes that the fastest tier holds."""
        return self.fastest.stored_bytes

    def restore(self) -> int:
        """Find again what the slower tiers kept of earlier processes; before the first request. Return how
        many checkpoints that is.
        """
        num_found = 0
        for index, tier in reversed(list(enumerate(self.slower))):
            faster = [self.fastest, *(each.cache for each in self.slower[:index])]
            num_found += restore_tier(tier, faster)
        return num_found

    def acquire(
        self,
        tokens: TokenLike,
        *,
        tenant: str = "",
        breakpoints: Sequence[int] | None = (),
        resume_limit: int | None = None,
        pins: Sequence[PinLike] | None = (),
    ) -> Lease:
        """Find and pin the deepest checkpoint that ``tokens`` can resume from, fetched from a slower tier
        where that pays. See ``PrefixCache.acquire``.
        """

        def hold() -> Lease:
            return self.fastest.acquire(
                tokens, tenant=tenant, breakpoints=breakpoints, resume_limit=resume_limit, pins=pins
            )

        lease = hold()
        if self._is_closed or not self._is_lasting(tenant):
            return lease
        below: list[Lease] = []
        try:
            for tier in self.slower:
                below.append(  # noqa: PERF401 (those held are released where the next fails)
                    tier.cache.acquire(
                        tokens, tenant=tenant, breakpoints=breakpoints, resume_limit=resume_limit
                    )
                )
            reached = lease.resume_position
            fetched_from = self._fetch(lease, below)
            if fetched_from is not None:
                lease.release()
                lease = hold()
                self._fetched[lease] = fetched_from, lease.resume_position - reached
        except BaseException:
            for each in (lease, *below):
                each.release()
            raise
        upper = lease
        for each in below:
            upper.beside = each
            upper = each
        self._link(lease)
        return lease

    def plan(
        self, lease: Lease, *, given_positions: Sequence[int] = (), capture_tokens: int | None = None
    ) -> Placement:
        """Return the positions of this prompt where a state should be captured; see ``PrefixCache.plan``."""
        return self.fastest.plan(lease, given_positions=given_positions, capture_tokens=capture_tokens)

    def commit(
        self,
        lease: Lease,
        placement: Placement,
        source: PayloadSource | None,
        *,
        kv_tokens: int | None = None,
    ) -> RequestReport:
        """Store what was captured, learn, and account for the request; see ``PrefixCache.commit``."""
        if source is not None:
            require_source(source)
        payloads = None if source is None else self._payloads(source)
        positions = lease.captured_positions(placement)
        report = self.fastest.commit(lease, placement, payloads, kv_tokens=kv_tokens)
        for tier, below in self._below(lease):
            tier.commit(below, positions, payloads)
        self._link(lease)
        if lease in self._fetched:
            tier, num_tokens = self._fetched[lease]
            tier.traffic.note_hit(num_tokens)
        if self._lessons is not None:
            self._lessons.save_if_due()
        return report

    def extend(self, lease: Lease, tokens: TokenLike, source: PayloadSource, *, unasked: bool = False) -> int:
        """Let a committed prompt go on as its answer does; see ``HostedCache.extend``. Return the position
        that the fastest tier stored, 0 if none.
        """
        require_source(source)
        payloads = self._payloads(source)
        stored = self.fastest.extend(lease, tokens, payloads, unasked=unasked)
        for tier, below in self._below(lease):
            tier.extend(below, as_tokens(tokens), payloads, unasked=unasked)
        return stored

    def note_computed(self, lease: Lease, seconds: float) -> None:
        """Learn how long the rest of the prompt took to compute after what ``lease`` resumed from."""
        start, end = self.footprint.costs_before((lease.resume_position, lease.request.num_tokens))
        self._computing.note(end - start, seconds)

    def reused_by_tier(self, lease: Lease) -> dict[str, int]:
        """Return how many tokens ``lease`` resumes after, by the tier that had them."""
        if lease not in self._fetched:
            return {self.name: lease.resume_position}
        tier, num_tokens = self._fetched[lease]
        return {self.name: lease.resume_position - num_tokens, tier.name: num_tokens}

    def forget_tenants(self, is_gone: Callable[[str], bool]) -> int:
        """Take out of the fastest tier what tenants have who will never come again in this process; see
        ``HostedCache.forget_tenants``.
        """
        return self.fastest.forget_tenants(is_gone)

    def forget_everything(self) -> int:
        """Take out all that anybody has, in every tier. Return how many checkpoints went from the fastest."""
        for tier in self.slower:
            tier.cache.forget_everything()
        return self.fastest.forget_everything()

    def statistics(self) -> CacheStatistics:
        """Return totals over all requests, and what the fastest tier stores now."""
        return self.fastest.statistics()

    def tiers(self) -> tuple[TierStatistics, ...]:
        """Return what each tier holds and was good for, from the fastest on."""
        held = self.fastest.statistics()
        num_hits = held.num_hits - sum(tier.traffic.num_hits for tier in self.slower)
        reused = held.reused - sum(tier.traffic.reused_tokens for tier in self.slower)
        fastest = TierStatistics.of(self.name, held, Traffic(num_hits=num_hits, reused_tokens=reused))
        return fastest, *(tier.statistics() for tier in self.slower)

    def check(self) -> None:
        """Recompute every invariant of every tier; raise ``CacheCorruptionError`` where one is broken."""
        self.fastest.check()
        for tier in self.slower:
            tier.cache.check()

    def close(self) -> None:
        """Write what waits, save what was learned, and let go of the shelves: from here on, this is the
        fastest tier alone. Harmless when done twice.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._lessons is not None:
            self._lessons.save()
        for tier in self.slower:
            tier.shelf.close()

    def _fetch(self, lease: Lease, below: list[Lease]) -> Tier | None:
        """Have faster tiers adopt the checkpoint that is worth it most; return whose it was, None where there
        is none or no room. What cannot be read is dropped on the way, and its lease in ``below`` replaced.
        """
        while (index := self._worth_fetching(lease, below)) is not None:
            tier, found = self.slower[index], below[index]
            position, request = found.resume_position, found.request
            payloads = self._payloads(Reading(found, tier.read, segment_tokens=tier.segment_tokens))
            try:
                adopted = self.fastest.adopt(
                    found.tokens[:position], payloads, num_tokens=request.num_tokens, tenant=found.tenant
                )
                if adopted is None:
                    tier.traffic.num_without_room += 1
                    return None
                for faster, its in zip(self.slower[:index], below[:index], strict=True):
                    faster.adopt(its, position, payloads)
                tier.touch(found)
                return tier
            except DamagedError as error:
                tier.drop_damaged(found, error)
                # Never the same again: what others hold pinned cannot be dropped.
                below[index] = tier.cache.acquire(
                    found.tokens,
                    tenant=found.tenant,
                    breakpoints=found.situation.prompt.breakpoints,
                    resume_limit=position - 1,
                )
        return None

    def _worth_fetching(self, lease: Lease, below: Sequence[Lease]) -> int | None:
        """Return the tier that spares most, the time of its fetch taken off; None where none does."""
        best, most = None, 0.0
        (reached,) = self.footprint.costs_before((lease.resume_position,))
        for index, (tier, found) in enumerate(zip(self.slower, below, strict=True)):
            if found.resume_position <= lease.resume_position:
                continue
            (deeper,) = self.footprint.costs_before((found.resume_position,))
            num_bytes = tier.bytes_to_fetch(found, beyond=lease.found.resident_kv_tokens)
            spared = deeper - reached - tier.cost_to_fetch(num_bytes)
            if spared <= 0.0:
                tier.decline()
            elif spared > most:
                best, most = index, spared
        return best

    def _link(self, lease: Lease) -> None:
        """Note, for each tier, what slower ones have too."""
        faster = [(self.fastest, lease.pinned)]
        for tier, below in self._below(lease):
            for cache, held in faster:
                tier.link(below, cache, held)
            faster.append((tier.cache, below.pinned))

    def _below(self, lease: Lease) -> Iterator[tuple[Tier, Lease]]:
        """Yield the slower tiers with their leases on the prompt of ``lease``."""
        below = lease.beside
        for tier in self.slower:
            if below is None:
                return
            yield tier, below
            below = below.beside

    def _payloads(self, source: PayloadSource) -> Payloads:
        return Payloads(source, segment_tokens=self.slower[0].segment_tokens)
