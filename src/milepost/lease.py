"""One request's hold on what it resumes from, and on what is stored for it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self, final

from milepost.accounting import RequestReport
from milepost.errors import ConfigurationError, InvalidRequestError
from milepost.footprint import Footprint
from milepost.pins import Pin
from milepost.placement import Placement, PlacementRequest, as_placement
from milepost.policies import Situation
from milepost.store import Checkpoint, Delivery, Lookup, Node, Payload, PrefixStore, TreeMatch
from milepost.tokens import KeyArray

__all__ = ["Lease", "require_lease"]


@final
class Lease:
    """One request's hold on what it resumes from, and on what is stored for it: pinned until released, by
    ``with`` or :meth:`release`.

    Attributes:
        tokens: The prompt.
        tenant: Whose it is.
        found: What was stored for it when it was acquired.
        situation: What the policy is told of the prompt.
        usable_position: The deepest position that it could resume from, had everything been kept.
        pins: What the client asked to have kept, at grid positions.
        beside: The same request's lease on another tier, which goes with this one; None where there is none.
        checkpoint: The checkpoint it resumes from; None at 0.
        state: Payload of that checkpoint; None at 0, where KV alone is resumed from, and once released.
        kv_segments: Payloads of the whole KV segments before ``resume_position``, in order; empty once
            released.
    """

    def __init__(
        self,
        *,
        store: PrefixStore,
        tokens: KeyArray,
        tenant: str,
        found: Lookup,
        situation: Situation,
        usable_position: int,
        pins: Sequence[Pin] = (),
    ) -> None:
        self.tokens = tokens
        self.tenant = tenant
        self.found = found
        self.situation = situation
        self.usable_position = usable_position
        self.pins = pins
        self.beside: Lease | None = None
        self.is_released = False
        self.is_committed = False
        self._store = store
        self.checkpoint = store.pin_resumed(found)
        self._pinned = [] if self.checkpoint is None else [self.checkpoint]
        self.state: Payload | None = None if self.checkpoint is None else self.checkpoint.payload
        self.kv_segments: Sequence[Any] = store.kv_segments(found)

    @property
    def request(self) -> PlacementRequest:
        """What is known of the prompt, in plain numbers."""
        return self.situation.request

    @property
    def resume_position(self) -> int:
        """Tokens that need not be computed."""
        return self.situation.request.resume_position

    @property
    def pinned(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that it pins: the one resumed from, and those committed with it."""
        return tuple(self._pinned)

    def resume_deeper(self, position: int) -> None:
        """Note that the request resumes at ``position``, from a copy that no cache here has: from there on it
        is planned and accounted for. Not the other way: harmless where it resumes deeper by itself.
        """
        request = self.situation.request
        overlap = max(request.overlap_depth, position)
        matched = request.matched_num_tokens
        self.situation.request = replace(
            request,
            resume_position=max(request.resume_position, position),
            overlap_depth=overlap,
            matched_num_tokens=None if matched is None else max(matched, overlap),
        )

    def compute_in_calls(self, ends: Sequence[int], *, cut_tokens: int | None = None) -> None:
        """Have it planned for an engine that captures one state in each call.

        Args:
            ends: Where the calls end, ascending.
            cut_tokens: What it costs to cut one in two, for one state more; None where that cannot be done.
        """
        self.situation.request = replace(self.request, call_ends=tuple(ends), cut_tokens=cut_tokens)

    def require_of(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease was acquired on ``store``."""
        if store is not self._store:
            raise InvalidRequestError("the lease belongs to another cache; use it where it was acquired")

    def require_held(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease is held on ``store``."""
        self.require_of(store)
        if self.is_released:
            raise InvalidRequestError(
                "the lease is released, so nothing holds what it resumed from; plan and commit first"
            )

    def require_open(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease is held on ``store`` and was not committed yet."""
        self.require_held(store)
        if self.is_committed:
            raise InvalidRequestError("the lease is committed already; acquire one for each request")

    def require_committed(self, store: PrefixStore) -> None:
        """Raise ``InvalidRequestError`` unless this lease was committed to ``store``."""
        self.require_of(store)
        if not self.is_committed:
            raise InvalidRequestError("the lease is not committed, so its prompt is unknown; commit it first")

    def captured_positions(self, placement: Placement) -> tuple[int, ...]:
        """Return the positions of ``placement``, which may be a plain sequence of them.

        Raises:
            InvalidRequestError: no checkpoint of this prompt can be at one of them.
        """
        try:
            return as_placement(placement, self.request).positions
        except ConfigurationError as error:
            raise InvalidRequestError(str(error)) from None

    def keep(
        self, delivery: Delivery, *, match: TreeMatch, kv_end: int, footprint: Footprint, tick: int
    ) -> RequestReport:
        """Have the store remember the prompt and keep of ``delivery`` what there is room for, and pin that.

        Args:
            delivery: The states captured, and the KV.
            match: The prompt, as the tree knows it now.
            kv_end: Where the KV ends that is kept whether or not a state needs it.
            footprint: What a state and a token cost.
            tick: The time, in requests.
        """
        store, prompt, positions = self._store, self.situation.prompt, delivery.positions
        for checkpoint in delivery.present.values():
            self._pin(checkpoint)
        if self.checkpoint is not None:
            store.touch(self.checkpoint, tick=tick)
        prompt.forecast = self.situation.forecast
        path = store.remember(self.tokens, tenant=self.tenant, prompt=prompt, match=match).path
        if not footprint.windows:
            # Early states are smaller than the footprint says; room for those is made one by one.
            store.make_room(path, positions)
        num_stored = 0
        for position, cost in zip(positions, footprint.costs_before(positions), strict=True):
            stored = store.put(path, position, source=delivery, tick=tick, cost=cost)
            if stored is not None:
                if position not in delivery.present:
                    self._pin(stored)
                store.touch(stored, tick=tick)
                num_stored += 1
        if kv_end:
            store.keep_kv(path, kv_end, source=delivery, tick=tick)
        num_pinned, num_unpinned = self._keep_promises(path, tick=tick)
        store.forget_history()
        return self._report(
            checkpoints_stored=num_stored,
            checkpoints_rejected=len(positions) - num_stored,
            checkpoints_pinned=num_pinned,
            checkpoints_unpinned=num_unpinned,
        )

    def release(self) -> None:
        """Let go of everything, the payloads included: what is evicted from now on must not live on in a
        lease that somebody keeps. Harmless when done twice.
        """
        self.is_released = True
        self.state = None
        self.kv_segments = ()
        while self._pinned:
            self._store.unpin(self._pinned.pop())
        # The budget may have been made smaller than what was held.
        self._store.evictor.shrink()
        if self.beside is not None:
            self.beside.release()

    def discard(self) -> None:
        """Release, and evict what was resumed from, for a payload that its owner does not trust, and a copy
        of it beside.
        """
        self.release()
        checkpoint, beside = self.checkpoint, self.beside
        if checkpoint is not None:
            self._store.promises.release(checkpoint)
            if checkpoint.may_go:
                self._store.evictor.evict(checkpoint)
        if beside is not None and beside.resume_position == self.resume_position:
            beside.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _pin(self, checkpoint: Checkpoint) -> None:
        self._store.pin(checkpoint)
        self._pinned.append(checkpoint)

    def _keep_promises(self, path: list[Node], *, tick: int) -> tuple[int, int]:
        """Have the store keep what is pinned for a time; return how many are, and how many, earlier ones
        or of these, are not any more.
        """
        promises = self._store.promises
        kept = [
            promises.keep(path, pin.position, ttl_seconds=pin.ttl_seconds, tick=tick) for pin in self.pins
        ]
        num_unpinned = promises.bound() if kept else 0
        return sum(each is not None and each in promises for each in kept), num_unpinned

    def _report(self, **checkpoints: int) -> RequestReport:
        """Return where every token of the prompt went."""
        request, found = self.situation.request, self.found
        resumed = request.resume_position
        # What was found reaches less deep where the request resumes from a copy elsewhere.
        reached, cleared = max(resumed, found.reached_position), max(resumed, found.cleared_position)
        usable = max(resumed, self.usable_position)
        return RequestReport(
            num_tokens=request.num_tokens,
            reused=resumed,
            unseen=request.num_tokens - request.overlap_depth,
            alignment=request.overlap_depth - usable,
            placement=usable - cleared,
            reset=cleared - reached,
            eviction=reached - resumed,
            **checkpoints,
        )


def require_lease(lease: object) -> None:
    """Raise ``InvalidRequestError`` unless this is a lease."""
    if not isinstance(lease, Lease):
        raise InvalidRequestError(f"lease={lease!r}; give what acquire returned")
