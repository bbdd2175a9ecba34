"""The prefix cache of hybrid and recurrent models, in three verbs.

A request has tokens ``x[0:L]``. :meth:`PrefixCache.acquire` finds how far it follows earlier prompts (its
*overlap depth* ``m``) and the deepest stored checkpoint ``c <= min(m, L - 1)``, and pins it: the request
resumes there and recomputes only ``x[c:L]``. :meth:`PrefixCache.plan` asks the placement policy which
positions of this prompt deserve a checkpoint, so that the engine can capture them in the one prefill pass
it runs anyway. :meth:`PrefixCache.commit` stores what was captured within one hard byte budget, over KV and
checkpoints alike, lets the policy learn from the overlap, and accounts for every recomputed token:

    unseen      L - m    no earlier prompt had it
    alignment   m - u    it lies behind the last usable grid position u (the last token is always computed)
    placement   u - r    no checkpoint was ever stored there; r is the deepest that was
    reset       r - e    a checkpoint was there, and went when the whole cache was emptied
    eviction    e - c    a checkpoint was there and was dropped

The cache knows no tensors, no clock and no model: payloads are opaque handles, time is the order of
commits, and the same object serves an engine, a simulator and a test. It has one owner and takes no locks.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from milepost.accounting import CacheStatistics, Ledger, RequestReport
from milepost.byte_size import parse_bytes
from milepost.cache_options import CacheOptions
from milepost.counts import as_count
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.footprint import Footprint
from milepost.lease import Lease
from milepost.placement import NoCheckpoints, Placement, PlacementPolicy, PlacementRequest, as_placement
from milepost.policies import CachePolicy
from milepost.policies.base import PromptRecord
from milepost.reuse import Sighting
from milepost.store import (
    Checkpoint,
    Collector,
    ContentlessPayloads,
    DropReports,
    Located,
    PayloadRules,
    PayloadSource,
    PrefixStore,
    check_store,
    require_source,
)
from milepost.tokens import TokenLike, as_breakpoints, as_prompt, common_prefix_length

__all__ = ["CacheStatistics", "Lease", "PrefixCache", "RequestReport"]


class PrefixCache:
    """See the module.

    Args:
        capacity_bytes: The one budget, over checkpoints and KV of all prompts: in bytes, or as ``"8GiB"``.
        footprint: What a checkpoint and a token of KV cost.
        policy: Where checkpoints are placed and which goes first: a notation, as ``"learned"`` or
            ``"balanced:8"``, or an object; with a placement alone, the least recently used goes first.
        grid: Checkpoints sit at multiples of this many tokens.
        segment_tokens: KV is stored in segments of this many tokens, a multiple of the grid; the grid itself
            unless given.
        history_tokens: Prompt tokens remembered without their KV; one for every 256 bytes of the budget
            unless given, at least a million.
        key_tokens: 1 where prompts are token ids; the length of a block where they are chained block hashes.
        max_checkpoints: Most checkpoints placed on one prompt, for an engine to which each is a stop.
        capture_tokens: What a capture costs such an engine, in tokens computed.
        on_drop: Told of the payloads that left the cache, states and KV segments alike, for an engine that
            does not leave it to the garbage collector to free them.

    Raises:
        ConfigurationError: an option breaks its rule.
        CapacityError: the budget cannot hold one checkpoint at the first grid position.
    """

    def __init__(
        self,
        *,
        capacity_bytes: int | str,
        footprint: Footprint,
        policy: CachePolicy | PlacementPolicy | str,
        grid: int = 64,
        segment_tokens: int | None = None,
        history_tokens: int | None = None,
        key_tokens: int = 1,
        max_checkpoints: int = 1 << 30,
        capture_tokens: int = 0,
        on_drop: Callable[[Sequence[Any]], None] | None = None,
    ) -> None:
        options = CacheOptions.checked(
            capacity_bytes=capacity_bytes,
            footprint=footprint,
            policy=policy,
            grid=grid,
            segment_tokens=segment_tokens,
            history_tokens=history_tokens,
            key_tokens=key_tokens,
            max_checkpoints=max_checkpoints,
            capture_tokens=capture_tokens,
        )
        self.footprint = footprint
        self.policy = options.policy
        self.key_tokens = options.key_tokens
        self._max_checkpoints = options.max_checkpoints
        self._capture_tokens = options.capture_tokens
        # Only ratios of costs matter, so where every token costs the same, tokens will do.
        self._cost = None if footprint.cost.is_linear else footprint.cost
        # Without states, only whole segments can be resumed from.
        self.grid = options.segment_tokens if footprint.is_stateless else options.grid
        self._drops = DropReports(on_drop)
        self._store = PrefixStore(
            capacity_bytes=options.capacity_bytes,
            segment_tokens=options.segment_tokens,
            kv_bytes_per_token=footprint.kv_bytes_per_token,
            is_stateless=footprint.is_stateless,
            eviction=self.policy.eviction,
            history_tokens=options.history_tokens,
            key_tokens=options.key_tokens,
            checkpoint_bytes=footprint.checkpoint_bytes,
            keeps_kv=self.policy.keeps_kv,
            state_share=self.policy.state_share,
            on_drop=None if on_drop is None else self._drops.note,
        )
        rules = PayloadRules(footprint, options.segment_tokens)
        self._collector = Collector(self._store, rules=rules, drops=self._drops)
        self._ledger = Ledger()
        if self.policy.attach is not None:
            alike = {name: getattr(options, name) for name in CacheOptions.__slots__ if name != "policy"}
            self.policy.attach(lambda policy, prompts: _replay(PrefixCache(policy=policy, **alike), prompts))

    @property
    def stored_bytes(self) -> int:
        """Bytes of all KV and checkpoints that are stored now."""
        return self._store.stored_bytes

    def acquire(
        self,
        tokens: TokenLike,
        *,
        num_tokens: int | None = None,
        tenant: str = "",
        breakpoints: Sequence[int] | None = (),
        resume_limit: int | None = None,
    ) -> Lease:
        """Find and pin the deepest checkpoint that ``tokens`` can resume from.

        Args:
            tokens: Token ids of the prompt, shape ``[num_tokens]``; where a key stands for a block, its
                chained block hashes, one each; that of a partial block at the end may be left out.
            num_tokens: Length of a prompt of block hashes; whole blocks unless given.
            tenant: Prompts of different tenants share no state, no KV and no match; they share the budget.
            breakpoints: Positions in the prompt where its messages end, or its client asked for a cache
                point; hints for a policy that learns.
            resume_limit: Resume no deeper than here, for an owner that does not trust what lies deeper.

        Raises:
            InvalidRequestError: the prompt is empty or not a sequence of token ids, or an option breaks its
                rule.

        Complexity: O(overlap depth + nodes on the path).
        """
        keys, num_tokens = as_prompt(tokens, num_tokens=num_tokens, key_tokens=self.key_tokens)
        if not isinstance(tenant, str):
            raise InvalidRequestError(f"tenant={tenant!r}; give a str, such as a name or an account's id")
        if resume_limit is not None:
            resume_limit = as_count("resume_limit", resume_limit, error=InvalidRequestError)
        # The last token is computed in any case: its logits are the answer.
        last_usable = (num_tokens - 1) // self.grid * self.grid
        located = self._store.locate(
            keys, num_tokens=num_tokens, tenant=tenant, limit=last_usable, resume_limit=resume_limit
        )
        checkpoint, earlier = located.checkpoint, located.earlier
        affordable_position, max_checkpoints = self._affordable(
            num_tokens, beside_bytes=0 if checkpoint is None else checkpoint.num_bytes
        )
        request = PlacementRequest(
            num_tokens=num_tokens,
            overlap_depth=located.overlap_depth,
            resume_position=located.resume_position,
            grid=self.grid,
            checkpoint_positions=located.checkpoint_positions,
            checkpoint_bytes=self.footprint.checkpoint_bytes,
            kv_bytes_per_token=self.footprint.kv_bytes_per_token,
            resident_kv_tokens=located.resident_kv_tokens,
            fallback_position=0 if checkpoint is None else checkpoint.above_position,
            junctions=located.junctions,
            room_worth=self._store.room_worth,
            sighting=Sighting(num_tokens, breakpoints=as_breakpoints(breakpoints, num_tokens=num_tokens)),
            earlier=earlier,
            max_checkpoints=max_checkpoints,
            affordable_position=affordable_position,
            matched_num_tokens=None if earlier is None else max(earlier.num_tokens, located.overlap_depth),
            capture_tokens=self._capture_tokens,
            cost=self._cost,
        )
        return Lease(
            store=self._store,
            tokens=keys,
            match=located.match,
            tenant=tenant,
            request=request,
            usable_position=min(located.overlap_depth // self.grid * self.grid, last_usable),
            reached_position=located.reached_position,
            cleared_position=located.cleared_position,
            checkpoint=self._store.anchor(located),
            kv_segments=self._store.kv_segments(located),
        )

    def plan(
        self, lease: Lease, *, given_positions: Sequence[int] = (), capture_tokens: int | None = None
    ) -> Placement:
        """Return the positions of this prompt where a state should be captured. Reads only.

        Args:
            lease: The request.
            given_positions: Where the engine will capture one in any case, ascending: they are part of the
                plan, and what they save is no reason for others.
            capture_tokens: What a capture costs the engine now, in tokens computed; the cache's option unless
                given.

        Raises:
            InvalidRequestError: the lease is released, or another cache's.
            ConfigurationError: what the policy returned is no placement on this prompt.
        """
        _require_lease(lease)
        lease.require_held(self._store)
        placement, request = self.policy.placement, lease.request
        if self.footprint.is_stateless and not isinstance(placement, NoCheckpoints):
            # Every segment boundary can be resumed from: one anchor at the last keeps them all.
            last = self._affordable(request.num_tokens)[0]
            return Placement((last,) if last > lease.resume_position else ())
        if given_positions or capture_tokens is not None:
            request = replace(
                request,
                given_positions=tuple(given_positions),
                capture_tokens=request.capture_tokens if capture_tokens is None else capture_tokens,
            )
        planned = as_placement(placement.place(request), request, by=placement)
        if not given_positions:
            return planned
        return Placement(tuple(sorted({*planned.positions, *given_positions})))

    def commit(self, lease: Lease, placement: Placement, source: PayloadSource | None) -> RequestReport:
        """Store what was captured, learn, and account for the request. The lease stays held.

        Args:
            lease: The request, still held.
            placement: The positions captured, as :meth:`plan` gave them or fewer.
            source: Hands out the payloads of the positions and segments that the store decides to keep; None
                where there are none to be had, and then nothing was captured.

        Raises:
            InvalidRequestError: a position lies at or before the resume position, behind the prompt's end or
                off the grid; the lease is released, committed or another cache's; or the source hands out
                what breaks a rule (see ``PayloadSource``). Nothing is changed, nor where the source raises.

        Complexity: O(num_tokens + checkpoints evicted · log checkpoints stored).
        """
        _require_lease(lease)
        lease.require_open(self._store)
        request, store = lease.request, self._store
        positions = self._checked_positions(placement, request)
        match = store.match(lease.tokens, tenant=lease.tenant, known=lease.match)
        keeps_kv = source is not None and self.policy.keeps_kv and not self.footprint.is_stateless
        kept_kv = request.num_tokens if keeps_kv else 0
        delivery = self._collector.collect(
            source, match, positions, kv_end=max((kept_kv, *positions)), resumed_from=lease.state
        )
        if lease.is_released or lease.is_committed:
            # A source is somebody's code, and may have used the very lease that it is asked for.
            self._drops.note(delivery.left())
            lease.require_open(store)
        tick = self._ledger.num_requests + 1
        with self._drops.gathered(delivery):
            for checkpoint in delivery.present.values():
                lease.hold(checkpoint)
            if lease.checkpoint is not None:
                store.touch(lease.checkpoint, tick=tick)
            assert request.sighting is not None
            passage = store.remember(
                lease.tokens, tenant=lease.tenant, sighting=request.sighting, match=match
            )
            num_stored = 0
            if not self.footprint.windows:
                # Early states are smaller than the footprint says; room for those is made one by one.
                store.make_room(passage.path, positions)
            for position, cost in zip(positions, self._costs(positions), strict=True):
                stored = store.put(passage.path, position, source=delivery, tick=tick, cost=cost)
                if stored is not None:
                    if position not in delivery.present:
                        lease.hold(stored)
                    store.touch(stored, tick=tick)
                    num_stored += 1
            if kept_kv:
                store.keep_kv(passage.path, kept_kv, source=delivery, tick=tick)
            store.forget_history()
        report = RequestReport(
            num_tokens=request.num_tokens,
            reused=request.resume_position,
            unseen=request.num_tokens - request.overlap_depth,
            alignment=request.overlap_depth - lease.usable_position,
            placement=lease.usable_position - lease.cleared_position,
            reset=lease.cleared_position - lease.reached_position,
            eviction=lease.reached_position - request.resume_position,
            checkpoints_stored=num_stored,
            checkpoints_rejected=len(positions) - num_stored,
        )
        self._ledger.add(report)
        lease.is_committed = True
        self.policy.placement.observe(request)
        return report

    def prolong(self, lease: Lease, tokens: TokenLike, source: PayloadSource) -> int:
        """Let the prompt of a committed ``lease`` go on as its answer does, and store a checkpoint at the end
        if that is worth it. This is no request: nothing is counted, and no overlap learned.

        Args:
            lease: Committed; it may be released.
            tokens: The prompt and its answer so far, whole grid steps of them; as for :meth:`acquire`.
            source: Hands out the payloads.

        Returns:
            The position stored, 0 if none.

        Raises:
            InvalidRequestError: the lease is not committed here; the tokens do not begin with its prompt; or
                the source hands out what breaks a rule. Nothing is changed, nor where the source raises.

        Complexity: O(num_tokens), and what one plan takes.
        """
        _require_lease(lease)
        lease.require_committed(self._store)
        keys, _ = as_prompt(tokens, num_tokens=None, key_tokens=self.key_tokens)
        if common_prefix_length(keys, lease.tokens) < lease.tokens.size:
            raise InvalidRequestError(
                f"the {keys.size} tokens or keys given do not begin with the {lease.tokens.size} of the "
                "lease's prompt; give the prompt and its answer so far"
            )
        require_source(source)
        sighting, position = lease.request.sighting, keys.size * self.key_tokens // self.grid * self.grid
        assert sighting is not None
        # The end of the keys is not the end of the answer.
        num_tokens = keys.size * self.key_tokens + 1
        located = self._store.locate(keys, num_tokens=num_tokens, tenant=lease.tenant, limit=position)
        if not self._store.is_led_by(sighting, located.match):
            return 0
        with self._store.supposing(sighting, num_tokens=num_tokens):
            planned = self._plan_answer(lease.request, located, num_tokens=num_tokens)
        positions = (position,) if position > located.resume_position and position in planned else ()
        costs = self._costs(positions)
        delivery = self._collector.collect(
            source, located.match, positions, kv_end=max((0, *positions)), resumed_from=None
        )
        with self._drops.gathered(delivery):
            path = self._store.prolong(keys, tenant=lease.tenant, sighting=sighting, num_tokens=num_tokens)
            if path is None or not positions:
                return 0
            tick = self._ledger.num_requests
            stored = self._store.put(path, position, source=delivery, tick=tick, cost=costs[0])
        return 0 if stored is None else position

    def _plan_answer(
        self, request: PlacementRequest, located: Located, *, num_tokens: int
    ) -> tuple[int, ...]:
        """Return where the policy places checkpoints on the prompt of ``request`` once it is ``num_tokens``
        long, its answer included, of which ``located`` says what is stored.
        """
        affordable_position, max_checkpoints = self._affordable(num_tokens)
        request = replace(
            request,
            num_tokens=num_tokens,
            # All but the last token will be known by then.
            overlap_depth=num_tokens - 1,
            resume_position=located.resume_position,
            fallback_position=0 if located.checkpoint is None else located.checkpoint.above_position,
            checkpoint_positions=located.checkpoint_positions,
            resident_kv_tokens=located.resident_kv_tokens,
            junctions=located.junctions,
            earlier=None,
            matched_num_tokens=None,
            # The engine has the state anyway.
            capture_tokens=0,
            max_checkpoints=max_checkpoints,
            affordable_position=affordable_position,
        )
        by = self.policy.placement
        return as_placement(by.place(request), request, by=by).positions

    def discard(self, lease: Lease) -> None:
        """Release ``lease`` and drop what it resumed from, for a payload that its owner does not trust.

        Raises:
            InvalidRequestError: the lease is another cache's.
        """
        _require_lease(lease)
        lease.require_of(self._store)
        lease.release()
        if lease.checkpoint is not None:
            self.drop(lease.checkpoint)

    def drop(self, checkpoint: Checkpoint) -> bool:
        """Evict ``checkpoint``, whose memory its owner has taken or wants. Return False, and change nothing,
        where a lease holds it, or it is gone already.
        """
        if checkpoint.num_pins or not self._store.holds(checkpoint):
            return False
        self._store.evict(checkpoint)
        return True

    def settle(self, lease: Lease, is_intact: Callable[[Any], bool]) -> int:
        """Release ``lease``, committed before its states were captured; take out those whose payload is not
        intact, as if they had not been placed. Return how many. What another lease holds is left to that one.

        Raises:
            InvalidRequestError: the lease is another cache's.
        """
        _require_lease(lease)
        lease.require_of(self._store)
        held = lease.held
        lease.release()
        lost = [
            checkpoint
            for checkpoint in held
            if checkpoint.num_pins == 0
            and self._store.holds(checkpoint)
            and not is_intact(checkpoint.payload)
        ]
        for checkpoint in lost:
            self._store.forgo(checkpoint)
        return len(lost)

    def resize(self, capacity_bytes: int | str) -> None:
        """Change the budget. The least worth goes until it is kept; what leases hold, once they are released.

        Raises:
            ConfigurationError: it is no amount of memory.
        """
        self._store.capacity_bytes = parse_bytes(capacity_bytes)
        self._store.shrink()

    def evict_least(self) -> bool:
        """Evict the checkpoint that is worth least, for an engine that needs its memory; return whether
        there was one that no lease holds.
        """
        return self._store.evict_least()

    def clear(self) -> None:
        """Take out all checkpoints that no lease holds. What was learned stays; who misses them is told apart
        from who misses what was evicted.
        """
        self._store.clear()

    def forget_tenants(self, is_gone: Callable[[str], bool]) -> int:
        """Take out all that tenants have who will never come again; what leases hold goes once they are
        released.

        Args:
            is_gone: Says so of a tenant.

        Returns:
            How many checkpoints went at once.

        Complexity: O(tenants + nodes of those that are gone).
        """
        gone = [tenant for tenant in self._store.tree.tenants() if is_gone(tenant)]
        return sum(self._store.forget_tenant(tenant) for tenant in gone)

    def statistics(self) -> CacheStatistics:
        """Return totals over all requests and what is stored now. O(1)."""
        store = self._store
        return CacheStatistics(
            **self._ledger.as_dict(),
            num_checkpoints=store.num_checkpoints,
            num_evictions=store.num_evictions,
            checkpoint_bytes=store.checkpoint_bytes,
            kv_bytes=store.kv.num_bytes,
            capacity_bytes=store.capacity_bytes,
            history_tokens=store.tree.num_tokens,
        )

    def check(self) -> None:
        """Recompute every invariant of the store; raise ``CacheCorruptionError`` where one is broken."""
        check_store(self._store)

    def _checked_positions(self, placement: Placement, request: PlacementRequest) -> tuple[int, ...]:
        """Return the positions of ``placement``, which may be a plain sequence of them."""
        try:
            return as_placement(placement, request).positions
        except ConfigurationError as error:
            raise InvalidRequestError(str(error)) from None

    def _costs(self, positions: Sequence[int]) -> list[float]:
        """Return the cost of computing what lies before each position."""
        if self._cost is None or not positions:
            return [float(position) for position in positions]
        return [float(cost) for cost in self._cost(np.array(positions, np.int64))]

    def _affordable(self, num_tokens: int, *, beside_bytes: int = 0) -> tuple[int, int]:
        """Return the deepest grid position of a prompt that the budget could hold a checkpoint at, KV
        included, beside so many bytes of the state that it resumes from; and how many fit beside that KV.
        """
        store, state_bytes = self._store, self.footprint.checkpoint_bytes
        position = num_tokens // self.grid * self.grid
        num_segments = -(-position // store.segment_tokens)
        capacity_bytes = store.capacity_bytes - beside_bytes
        if num_segments * store.kv.segment_bytes + state_bytes > capacity_bytes:
            # Without KV, or with a budget that shrank below one state, nothing fits at all.
            room = max(0, capacity_bytes - state_bytes)
            num_segments = room // store.kv.segment_bytes if store.kv.segment_bytes else 0
            position = num_segments * store.segment_tokens
        free_bytes = capacity_bytes - num_segments * store.kv.segment_bytes
        return position, min(self._max_checkpoints, max(0, free_bytes // state_bytes)) if state_bytes else 1


def _replay(cache: PrefixCache, prompts: Sequence[PromptRecord]) -> int:
    """Serve ``prompts`` on an empty ``cache``; return how many tokens were reused."""
    source = ContentlessPayloads(cache.footprint, segment_tokens=cache._store.segment_tokens)
    tenants: dict[object, str] = {}
    dtype = cache._store.tree.key_dtype
    for prompt in prompts:
        tenant = tenants.setdefault(prompt.tenant, str(len(tenants)))
        keys = np.frombuffer(prompt.keys, dtype)
        with cache.acquire(keys, num_tokens=prompt.num_tokens, tenant=tenant) as lease:
            cache.commit(lease, cache.plan(lease), source)
    return cache.statistics().reused


def _require_lease(lease: object) -> None:
    if not isinstance(lease, Lease):
        raise InvalidRequestError(f"lease={lease!r}; give what acquire returned")
