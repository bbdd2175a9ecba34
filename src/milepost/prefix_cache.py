"""The prefix cache of hybrid and recurrent models, in three verbs.

A request has tokens ``x[0:L]``. :meth:`PrefixCache.acquire` finds how far it follows earlier prompts (its
*overlap depth* ``m``) and the deepest stored checkpoint ``c <= min(m, L - 1)``, and pins it: the request
resumes there and recomputes only ``x[c:L]``. :meth:`PrefixCache.plan` asks the placement policy which
positions of this prompt deserve a checkpoint, so that the engine can capture them in the one prefill pass
it runs anyway. :meth:`PrefixCache.commit` stores what was captured within one hard byte budget, over KV and
checkpoints alike, lets the policy learn from the overlap, and accounts for every recomputed token:

    unseen      L - m    no earlier prompt had it
    alignment   m - u    it lies beyond the last usable grid position u (the last token is always computed)
    placement   u - r    no checkpoint was ever stored there; r is the deepest that was
    reset       r - e    a checkpoint was there, and went when the whole cache was emptied
    eviction    e - c    a checkpoint was there and was dropped

The cache knows no tensors, no clock and no model: payloads are opaque handles, time is the order of
commits, and the same object serves an engine, a simulator and a test. It has one owner and takes no locks.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from milepost.accounting import CacheStatistics, Ledger, RequestReport
from milepost.cache_options import CacheOptions
from milepost.counts import as_count
from milepost.errors import InvalidRequestError
from milepost.footprint import Footprint
from milepost.lease import Lease, require_lease
from milepost.pins import Pin, PinLike, as_pins
from milepost.placement import NoCheckpoints, Placement, PlacementPolicy, as_placement
from milepost.policies import CachePolicy, PlacementLimits, Situation, place
from milepost.prompt_replay import PromptReplay
from milepost.store import (
    Collector,
    DropReports,
    PayloadRules,
    PayloadSource,
    SeenPrompt,
    check_store,
)
from milepost.tokens import TokenLike, as_breakpoints, as_prompt

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
        clock: Returns seconds from some start on; asked for pins alone.

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
        clock: Callable[[], float] = time.monotonic,
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
        # Without states, only whole segments can be resumed from.
        self.grid = options.segment_tokens if footprint.is_stateless else options.grid
        self._capture_tokens = options.capture_tokens
        self._limits = PlacementLimits(footprint, grid=self.grid, max_checkpoints=options.max_checkpoints)
        self._drops = DropReports(on_drop)
        self._store = options.new_store(on_drop=None if on_drop is None else self._drops.note, clock=clock)
        rules = PayloadRules(footprint, options.segment_tokens)
        self._collector = Collector(self._store, rules=rules, drops=self._drops)
        self._ledger = Ledger()
        if self.policy.lessons is not None:
            self.policy.lessons.note_layout(
                grid_tokens=self.grid, checkpoint_bytes=footprint.checkpoint_bytes
            )
        if self.policy.attach is not None:
            self.policy.attach(PromptReplay(options, PrefixCache))

    def acquire(
        self,
        tokens: TokenLike,
        *,
        num_tokens: int | None = None,
        tenant: str = "",
        breakpoints: Sequence[int] | None = (),
        resume_limit: int | None = None,
        pins: Sequence[PinLike] | None = (),
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
            pins: Positions in the prompt of which a state is captured in any case, unless it lies before what
                the prompt resumes from, and what is there is not evicted for the seconds given with each.
                All pins together may take half of the budget; beyond that the oldest is let go first.

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
        found = self._store.look_up(
            keys, num_tokens=num_tokens, tenant=tenant, limit=last_usable, resume_limit=resume_limit
        )
        prompt = SeenPrompt(num_tokens, breakpoints=as_breakpoints(breakpoints, num_tokens=num_tokens))
        return Lease(
            store=self._store,
            tokens=keys,
            tenant=tenant,
            found=found,
            situation=Situation.of(found, prompt, store=self._store, limits=self._limits),
            usable_position=min(found.overlap_depth // self.grid * self.grid, last_usable),
            pins=self._pins_on_grid(pins, num_tokens),
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
        require_lease(lease)
        lease.require_held(self._store)
        placement, request = self.policy.placement, lease.request
        if self.footprint.is_stateless and not isinstance(placement, NoCheckpoints):
            # Every segment boundary can be resumed from: one anchor at the last keeps them all.
            last = self._limits.affordable(self._store, request.num_tokens)[0]
            return Placement((last,) if last > lease.resume_position else ())
        if lease.pins and not isinstance(placement, NoCheckpoints):
            last = self._limits.affordable(self._store, request.num_tokens)[0]
            pinned = {pin.position for pin in lease.pins if lease.resume_position < pin.position <= last}
            given_positions = sorted(pinned.union(given_positions))
        if capture_tokens is None:
            capture_tokens = self._capture_tokens
        placed = place(
            placement, lease.situation, given_positions=given_positions, capture_tokens=capture_tokens
        )
        planned = as_placement(placed, request, by=placement)
        if not given_positions:
            return planned
        return Placement(tuple(sorted({*planned.positions, *given_positions})))

    def commit(
        self,
        lease: Lease,
        placement: Placement,
        source: PayloadSource | None,
        *,
        kv_tokens: int | None = None,
    ) -> RequestReport:
        """Store what was captured, learn, and account for the request. The lease stays held.

        Args:
            lease: The request, still held.
            placement: The positions captured, as :meth:`plan` gave them or fewer.
            source: Hands out the payloads of the positions and segments that the store decides to keep; None
                where there are none to be had, and then nothing was captured.
            kv_tokens: Tokens of the prompt whose KV there is, where that is not yet all of it; what a policy
                keeps to a prompt's end (``keeps_kv``) ends there.

        Raises:
            InvalidRequestError: a position lies at or before the resume position, beyond the prompt's end or
                off the grid; the lease is released, committed or another cache's; or the source hands out
                what breaks a rule (see ``PayloadSource``). Nothing is changed, nor where the source raises.

        Complexity: O(num_tokens + checkpoints evicted · log checkpoints stored).
        """
        require_lease(lease)
        lease.require_open(self._store)
        request, store = lease.request, self._store
        positions = lease.captured_positions(placement)
        keeps_kv = source is not None and self.policy.keeps_kv and not self.footprint.is_stateless
        kv_limit = request.num_tokens
        if kv_tokens is not None:
            kv_limit = as_count("kv_tokens", kv_tokens, most=kv_limit, error=InvalidRequestError)
        kv_end = kv_limit if keeps_kv else 0
        match = store.match(lease.tokens, tenant=lease.tenant, known=lease.found.match)
        delivery = self._collector.collect(
            source, match, positions, kv_end=max((kv_end, *positions)), resumed_from=lease.state
        )
        if lease.is_released or lease.is_committed:
            # A source is somebody's code, and may have used the very lease that it is asked for.
            self._drops.note(delivery.left())
            lease.require_open(store)
        with self._drops.gathered(delivery):
            tick = self._ledger.num_requests + 1
            report = lease.keep(delivery, match=match, kv_end=kv_end, footprint=self.footprint, tick=tick)
        self._ledger.add(report)
        lease.is_committed = True
        self.policy.placement.observe(request)
        return report

    def _pins_on_grid(self, pins: Sequence[PinLike] | None, num_tokens: int) -> tuple[Pin, ...]:
        """Return pins where checkpoints can be, those before the first such position left out."""
        checked = as_pins(pins, num_tokens=num_tokens) if pins else ()
        floored = (Pin(pin.position // self.grid * self.grid, pin.ttl_seconds) for pin in checked)
        return tuple(pin for pin in floored if pin.position)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all KV and checkpoints that are stored now."""
        return self._store.budget.stored_bytes

    def statistics(self) -> CacheStatistics:
        """Return totals over all requests and what is stored now. O(1)."""
        store = self._store
        return CacheStatistics(
            **self._ledger.as_dict(),
            num_checkpoints=store.checkpoints.count,
            num_evictions=store.evictor.num_evictions,
            checkpoint_bytes=store.budget.state_bytes,
            kv_bytes=store.kv.num_bytes,
            capacity_bytes=store.budget.capacity_bytes,
            history_tokens=store.tree.num_tokens,
        )

    def check(self) -> None:
        """Recompute every invariant of the store; raise ``CacheCorruptionError`` where one is broken."""
        check_store(self._store)
