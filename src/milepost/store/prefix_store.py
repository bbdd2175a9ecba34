"""What is kept, within one hard byte budget: checkpoints on a radix tree, and the KV they need, no more.

The law of the store, recomputed by ``check_store``:

1. KV is kept exactly where a checkpoint needs it. A state at position ``p`` is useless without the keys
   and values of ``[0, p)``; keys and values behind the last state of a path can never be resumed from, since
   the tokens have to run through the recurrent layers again anyway. So the KV of a path ends at its deepest
   checkpoint, is shared by all checkpoints that lie behind it, and leaves with the last of them.
2. Stored bytes never exceed the capacity, not even for a moment: room is made before anything is stored.
3. What a lease pins stays until the lease is released.
4. KV is cut at multiples of ``segment_tokens`` counted from the start of the prompt. A segment belongs to the
   exact tokens up to its end, so two prompts that part inside a segment have one each, and nothing is ever
   cut or shared on a guess.

A peer's policy may break law 1 (``keeps_kv``): then KV stays up to the prompt's end, or as far as its
*KV-only checkpoint* holds it, which cannot be resumed from and is evicted from its end, segment by segment.
And it may split the budget in two (``state_share``), one for states and one for KV.

Where a model has no recurrent state, any segment boundary can be resumed from, and a checkpoint is a
zero-byte *anchor* that only says how far KV is kept.
"""

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from milepost.reuse import Junction, Sighting
from milepost.store.eviction import KV_CELL, EvictionOrder, EvictionPolicy
from milepost.store.neighbours import exclusive_kv_tokens, link, unlink
from milepost.store.node import Checkpoint, Node, Payload
from milepost.store.resident_kv import ResidentKV, node_at
from milepost.store.source import PayloadSource
from milepost.store.tree import Passage, RadixTree, TreeMatch
from milepost.tokens import KeyArray

__all__ = ["Located", "PrefixStore"]

_position_of = attrgetter("position")
# The tick before the first request.
_NEVER = 0
# Behind a place where more checkpoints follow at once, the loss of one changes little for the others.
_MOST_SIBLINGS_RANKED = 8


@dataclass(frozen=True, slots=True)
class Located:
    """What the store holds for a prompt.

    Attributes:
        overlap_depth: Leading tokens that some earlier prompt of the tenant shares.
        resume_position: The deepest position to resume from, 0 where there is none.
        checkpoint: The checkpoint at ``resume_position``; None at 0, and where KV alone is resumed from.
        reached_position: The deepest usable position that was ever stored, evicted since or not.
        cleared_position: The same, or deeper: those that went when the cache was emptied count too.
        resident_kv_tokens: Leading tokens whose KV is stored.
        checkpoint_positions: Every stored checkpoint along the shared part.
        earlier: The latest prompt that shares it all; None where nothing is shared.
        junctions: Where prompts have parted along the shared part.
        match: Nodes of the shared part.
    """

    overlap_depth: int
    resume_position: int
    checkpoint: Checkpoint | None
    reached_position: int
    cleared_position: int
    checkpoint_positions: tuple[int, ...]
    earlier: Sighting | None
    junctions: tuple[tuple[int, Junction], ...]
    resident_kv_tokens: int
    match: TreeMatch


class PrefixStore:
    """See the module."""

    def __init__(
        self,
        *,
        capacity_bytes: int,
        segment_tokens: int,
        kv_bytes_per_token: int,
        is_stateless: bool,
        eviction: EvictionPolicy,
        history_tokens: int,
        key_tokens: int = 1,
        checkpoint_bytes: int = 0,
        keeps_kv: bool = False,
        state_share: float | None = None,
        on_drop: Callable[[Sequence[Any]], None] | None = None,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.segment_tokens = segment_tokens
        self.kv_bytes_per_token = kv_bytes_per_token
        self.kv = ResidentKV(
            segment_tokens=segment_tokens, bytes_per_token=kv_bytes_per_token, drop=self._drop
        )
        self.is_stateless = is_stateless
        self.checkpoint_bytes_each = checkpoint_bytes
        self.keeps_kv = keeps_kv
        # Where the budget is split, what states and KV may take each; else what both may take together.
        self._state_capacity = None if state_share is None else int(state_share * capacity_bytes)
        self.history_keys = history_tokens // key_tokens
        self.checkpoint_bytes = 0
        self.num_checkpoints = 0
        self.num_evictions = 0
        self.tree = RadixTree(segment_tokens=segment_tokens, key_tokens=key_tokens)
        self._eviction = eviction
        self._on_drop = on_drop
        self._order = EvictionOrder(eviction)
        self._pinned: dict[int, Checkpoint] = {}
        self._next_serial = 0
        # What may be evicted, once it is ranked or ranked again.
        self._stale: dict[int, Checkpoint] = {}
        self._short_cell: int | None = None

    @property
    def stored_bytes(self) -> int:
        """Bytes of KV and checkpoints together, never above the capacity."""
        return self.kv.num_bytes + self.checkpoint_bytes

    def locate(
        self, keys: KeyArray, *, num_tokens: int, tenant: str, limit: int, resume_limit: int | None = None
    ) -> Located:
        """Find the deepest resumable position of at most ``limit`` tokens. Reads only.

        ``resume_limit`` holds a resume back further, without a say in what counts as reached.
        """
        match = self.tree.match(keys, tenant=tenant)
        depth = min(match.depth, num_tokens)
        usable = min(depth, limit)
        resumable = usable if resume_limit is None else min(usable, resume_limit)
        deepest: Checkpoint | None = None
        reached = cleared = 0
        positions: list[int] = []
        junctions: list[tuple[int, Junction]] = []
        for node in match.path:
            if node.checkpoints:
                positions += [
                    c.position for c in node.checkpoints if c.position <= depth and not c.is_kv_only
                ]
                deepest = node.deepest_checkpoint(resumable) or deepest
            if node.checkpoints or node.dropped:
                reached = max(reached, _deepest_ever(node, usable))
            if node.cleared:
                cleared = max(cleared, _last_within(node.cleared, usable))
            if node.junction is not None and node.end <= depth:
                junctions.append((node.end, node.junction))
        resume = deepest.position if deepest is not None else 0
        resident = self.kv.reach(match.path)
        if self.is_stateless:
            aligned = usable // self.segment_tokens * self.segment_tokens
            resume = min(resumable // self.segment_tokens * self.segment_tokens, resident)
            reached = min(aligned, self.kv.reach_ever(match.path))
            deepest = next((c for n in match.path if (c := n.checkpoint_at(resume))), None)
        return Located(
            overlap_depth=depth,
            resume_position=resume,
            checkpoint=deepest,
            reached_position=max(reached, resume),
            cleared_position=max(cleared, reached, resume),
            checkpoint_positions=tuple(positions),
            resident_kv_tokens=min(resident, depth),
            earlier=match.path[-1].sighting if match.path else None,
            junctions=tuple(junctions),
            match=match,
        )

    def match(self, keys: KeyArray, *, tenant: str, known: TreeMatch) -> TreeMatch:
        """Return ``known``, or what has become of it where the tree has changed since."""
        return known if known.version == self.tree.version else self.tree.match(keys, tenant=tenant)

    def resident_kv(self, match: TreeMatch) -> list[Any]:
        """Return the KV payloads of the matched tokens, as far as they are stored, in order."""
        return self.kv.payloads(match.path, min(self.kv.reach(match.path), match.depth))

    def state_at(self, match: TreeMatch, position: int) -> Checkpoint | None:
        """Return the checkpoint that is stored at ``position`` of a prompt, KV-only ones aside."""
        if position > match.depth:
            return None
        found = node_at(match.path, position).checkpoint_at(position)
        return None if found is None or found.is_kv_only else found

    def kv_segments(self, located: Located) -> list[Any]:
        """Return the KV payloads of the whole segments before the resume position, in order."""
        return self.kv.payloads(located.match.path, located.resume_position)

    def pin(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint`` and its KV from eviction until as many :meth:`unpin` calls."""
        if checkpoint.num_pins == 0:
            self._withdraw(checkpoint)
            self._pinned[checkpoint.serial] = checkpoint
        checkpoint.num_pins += 1

    def unpin(self, checkpoint: Checkpoint) -> None:
        """Undo one :meth:`pin`."""
        checkpoint.num_pins -= 1
        if checkpoint.num_pins == 0:
            del self._pinned[checkpoint.serial]
            self._stale[checkpoint.serial] = checkpoint
            if checkpoint.last_used == _NEVER:
                # An anchor that only held a place for a request that came to nothing, or one that is not
                # wanted any more.
                self._remove(checkpoint)

    def anchor(self, located: Located) -> Checkpoint | None:
        """Return the checkpoint at the resume position; where KV alone is resumed from, put an anchor there
        so that there is something to pin.
        """
        if located.checkpoint is None and located.resume_position > 0:
            node = node_at(located.match.path, located.resume_position)
            return self._put(node, located.resume_position, payload=None, num_bytes=0, tick=_NEVER)
        return located.checkpoint

    def touch(self, checkpoint: Checkpoint, *, tick: int) -> None:
        """Note that a pinned ``checkpoint`` was used: resumed from, or captured again."""
        assert checkpoint.num_pins > 0
        checkpoint.last_used = tick

    def remember(
        self, keys: KeyArray, *, tenant: str, sighting: Sighting, match: TreeMatch | None = None
    ) -> Passage:
        """Add a prompt to the history, which from now on answers for its path, and let the policy learn."""
        passage = self.tree.insert(keys, tenant=tenant, sighting=sighting, match=match)
        # Those along the path are this prompt's from now on, no more to be moved with the one before.
        for checkpoint in sighting.held.values():
            self._order.detach(checkpoint)
        reranking = self._eviction.note_request(passage)
        for prompt, cell in reranking.moved:
            self._order.move(prompt, cell)
        for checkpoint in self._order.checkpoints() if reranking.everything else reranking.changed:
            self.rank(checkpoint)
        return passage

    def prolong(
        self, keys: KeyArray, *, tenant: str, sighting: Sighting, num_tokens: int
    ) -> list[Node] | None:
        """Let a prompt of the history go on, up to so many tokens; return its path, or None where it is not
        the one that answers for it any more: then nothing has changed.
        """
        match = self.tree.match(keys, tenant=tenant)
        if not self.is_led_by(sighting, match):
            return None
        passage = self.tree.insert(keys, tenant=tenant, sighting=sighting, match=match)
        sighting.num_tokens = num_tokens
        self._eviction.note_prolonged(sighting)
        self._rank_held(sighting)
        return passage.path

    @contextmanager
    def supposing(self, sighting: Sighting, *, num_tokens: int) -> Iterator[None]:
        """Expect and rank, as long as this lasts, as if a prompt of the history had so many tokens."""
        before, sighting.num_tokens = sighting.num_tokens, num_tokens
        take_back = self._eviction.note_prolonged(sighting)
        self._rank_held(sighting)
        try:
            yield
        finally:
            sighting.num_tokens = before
            take_back()
            self._rank_held(sighting)

    def is_led_by(self, sighting: Sighting, match: TreeMatch) -> bool:
        """Return whether it is still ``sighting`` that answers for the end of a matched path."""
        return bool(match.path) and match.path[-1].sighting is sighting

    def _rank_held(self, sighting: Sighting) -> None:
        for checkpoint in sighting.held.values():
            self.rank(checkpoint)

    def rank(self, checkpoint: Checkpoint) -> None:
        """Have ``checkpoint`` ranked again before the next eviction: its circumstances have changed. O(1)
        now, O(log n) then.
        """
        if checkpoint.num_pins == 0 and checkpoint.sighting is not None:
            self._stale[checkpoint.serial] = checkpoint

    def _rank_stale(self) -> None:
        for checkpoint in self._stale.values():
            self._order.enter(checkpoint, self._held_bytes(checkpoint))
        self._stale.clear()

    def _withdraw(self, checkpoint: Checkpoint) -> None:
        """Take ``checkpoint`` from those that may be evicted."""
        self._stale.pop(checkpoint.serial, None)
        self._order.leave(checkpoint)

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Return whether ``checkpoint`` is stored still."""
        return checkpoint.sighting is not None

    def put(
        self, path: list[Node], position: int, *, source: PayloadSource, tick: int, cost: float | None = None
    ) -> Checkpoint | None:
        """Store a checkpoint at ``position`` of the prompt along ``path``, with the KV it needs.

        Returns:
            The checkpoint (the one already there, if any), or None where the budget cannot hold it beside
            what is pinned. Nothing is evicted in vain.
        """
        node = node_at(path, position)
        if (present := node.checkpoint_at(position)) is not None:
            if not present.is_kv_only:
                return present
            self._remove(present)
        payload = None if self.is_stateless else source.checkpoint(position)
        num_bytes = 0 if payload is None else int(payload.num_bytes)
        if not self._make_room(path, node, position, num_bytes):
            self._drop((payload,))
            return None
        resident = self.kv.reach(path)
        aligned = position // self.segment_tokens * self.segment_tokens
        if aligned > resident:
            self.kv.fill(path, source.kv_segments(resident, aligned))
        checkpoint = self._put(node, position, payload=payload, num_bytes=num_bytes, tick=tick)
        if cost is not None:
            checkpoint.cost = cost
        return checkpoint

    def room_worth(self, num_bytes: int) -> float:
        """Return what the policy says of all that would have to be evicted to store so many bytes more;
        infinite where not even that is enough. Changes nothing. O(victims · log n).
        """
        excess = self.stored_bytes + num_bytes - self.capacity_bytes
        total = 0.0
        victims: dict[int, tuple[Checkpoint, int, float]] = {}
        while excess > 0:
            if not len(self._order) and not self._stale:
                # All that may go would. Branches share KV that was counted for none of them.
                if self._pinned_bytes() + num_bytes > self.capacity_bytes:
                    total = math.inf
                break
            checkpoint, worth = self._victim()
            held_bytes = self._held_bytes(checkpoint, without=victims.keys())
            # What a large victim frees beyond that is not lost: others will take it.
            total += worth * min(held_bytes, excess)
            excess -= held_bytes
            victims[checkpoint.serial] = checkpoint, *self._order.rank_of(checkpoint)
            self._order.leave(checkpoint)
        for victim in victims.values():
            self._order.place(*victim)
        return total

    def make_room(self, path: list[Node], positions: Sequence[int]) -> None:
        """Evict, at once, what a whole plan needs, where it fits beside what is pinned; else nothing.

        Putting its checkpoints one by one comes to the same, and ranks their neighbours each time.
        """
        if not positions or self.is_stateless:
            return
        position, num_bytes = positions[-1], len(positions) * self.checkpoint_bytes_each
        node = node_at(path, position)
        self._make_room(path, node, position, num_bytes)

    def keep_kv(self, path: list[Node], num_tokens: int, *, source: PayloadSource, tick: int) -> None:
        """Keep the KV of a whole prompt, as far as there is room, whether or not a state needs it."""
        position = num_tokens // self.segment_tokens * self.segment_tokens
        for node in path:
            for shorter in [c for c in node.checkpoints if c.is_kv_only and c.position <= position]:
                self._remove(shorter)
        if position == 0:
            return
        node = node_at(path, position)
        if node.checkpoint_at(position) is None:
            # Also where the KV is kept by longer prompts: it is not as old as theirs.
            checkpoint = self.put(path, position, source=_KVOnly(source), tick=tick)
            if checkpoint is not None:
                self._become_kv_only(checkpoint)

    def forget_history(self) -> None:
        """Drop the oldest prompts without checkpoints beyond ``history_tokens``."""
        if self.tree.num_keys > self.history_keys:
            for node in self.tree.forget(until_num_keys=self.history_keys):
                self._eviction.note_forgotten(node)

    def evict(self, checkpoint: Checkpoint) -> None:
        """Drop an unpinned ``checkpoint`` and the KV that no other needs. O(KV segments freed + depth)."""
        insort(checkpoint.node.dropped, checkpoint.position)
        self.num_evictions += 1
        if self.keeps_kv and exclusive_kv_tokens(checkpoint):
            self._drop((checkpoint.payload,))
            self.checkpoint_bytes -= checkpoint.num_bytes
            checkpoint.payload, checkpoint.num_bytes = None, 0
            self._become_kv_only(checkpoint)
        else:
            self._remove(checkpoint)

    def evict_least(self) -> bool:
        """Evict the checkpoint that is worth least; return whether there was one."""
        if not len(self._order) and not self._stale:
            return False
        self._short_cell = None
        checkpoint, worth = self._victim()
        self._eviction.note_eviction(checkpoint, worth)
        if checkpoint.is_kv_only:
            # There is nothing else to keep of it.
            self._remove(checkpoint)
        else:
            self.evict(checkpoint)
        return True

    def shrink(self) -> None:
        """Evict until the budget is kept, or nothing is left that nobody pins. O(1) where it is kept."""
        while self.stored_bytes > self.capacity_bytes and self.evict_least():
            pass

    def forgo(self, checkpoint: Checkpoint) -> None:
        """Take out a ``checkpoint`` that was never captured, as if it had not been placed."""
        self._remove(checkpoint)

    def clear(self) -> None:
        """Take out every checkpoint that nothing pins; what was learned stays."""
        self._rank_stale()
        for checkpoint in self._order.checkpoints():
            if not checkpoint.is_kv_only:
                insort(checkpoint.node.cleared, checkpoint.position)
            self._remove(checkpoint)

    def forget_tenant(self, tenant: str) -> int:
        """Take out all that a tenant has, for good; what a lease pins goes when it is released, and then only
        the tokens stay, as history. Return how many checkpoints went at once. O(nodes of the tenant).
        """
        num_removed = num_pinned = 0
        for node in list(self.tree.nodes(tenant=tenant)):
            for checkpoint in list(node.checkpoints):
                if checkpoint.num_pins:
                    checkpoint.last_used = _NEVER
                    num_pinned += 1
                else:
                    self._remove(checkpoint)
                    num_removed += 1
        if not num_pinned:
            for node in self.tree.forget_tenant(tenant):
                self._eviction.note_forgotten(node)
        return num_removed

    def ranked_or_pinned(self) -> tuple[int, int]:
        """Return how many checkpoints may be evicted, and how many may not."""
        num_unranked = sum(checkpoint not in self._order for checkpoint in self._stale.values())
        return len(self._order) + num_unranked, len(self._pinned)

    def is_ranked(self, checkpoint: Checkpoint) -> bool:
        """Return whether ``checkpoint`` may be evicted."""
        return checkpoint in self._order or checkpoint.serial in self._stale

    def _rank_neighbours(self, checkpoint: Checkpoint) -> None:
        """Rank again those whose worth depends on ``checkpoint``, which was just put in or taken out."""
        if not self._eviction.weighs_neighbours:
            return
        above = checkpoint.above
        if above is not None:
            self.rank(above)
            # A branch fewer or more may change who holds the KV in between alone.
            if len(above.below) <= _MOST_SIBLINGS_RANKED:
                for sibling in above.below.values():
                    if sibling is not checkpoint:
                        self.rank(sibling)
        for deeper in checkpoint.below.values():
            self.rank(deeper)

    def _remove(self, checkpoint: Checkpoint) -> None:
        self._withdraw(checkpoint)
        checkpoint.node.checkpoints.remove(checkpoint)
        unlink(checkpoint)
        if checkpoint.sighting is not None:
            del checkpoint.sighting.held[checkpoint.serial]
            checkpoint.sighting = None
        self._drop((checkpoint.payload,))
        # Whoever still knows the checkpoint must not keep its memory alive.
        checkpoint.payload = None
        self.checkpoint_bytes -= checkpoint.num_bytes
        self.num_checkpoints -= 1
        self._release_kv(checkpoint.node)
        self._rank_neighbours(checkpoint)

    def _put(
        self, node: Node, position: int, *, payload: Payload | None, num_bytes: int, tick: int
    ) -> Checkpoint:
        checkpoint = Checkpoint(
            node=node,
            position=position,
            payload=payload,
            num_bytes=num_bytes,
            serial=self._next_serial,
            tick=tick,
        )
        self._next_serial += 1
        was_live = node.is_live
        insort(node.checkpoints, checkpoint, key=_position_of)
        # KV alone is nothing to resume from: the state that was dropped here is missing still.
        if position in node.dropped and (payload is not None or self.is_stateless):
            node.dropped.remove(position)
        if position in node.cleared and (payload is not None or self.is_stateless):
            node.cleared.remove(position)
        self.checkpoint_bytes += num_bytes
        self.num_checkpoints += 1
        self._spread_life(node, was_live=was_live)
        node.sighting.hold(checkpoint)
        link(checkpoint)
        self.rank(checkpoint)
        self._rank_neighbours(checkpoint)
        return checkpoint

    def _spread_life(self, node: Node, *, was_live: bool) -> None:
        """Count a node that came alive at its parent, and so on upwards."""
        self.tree.note_life(node)
        while not was_live and node.parent is not None and node.parent.parent is not None:
            node = node.parent
            was_live = node.is_live
            node.num_live_children += 1
            self.tree.note_life(node)

    def _release_kv(self, node: Node) -> None:
        """Free the KV of ``node`` and its ancestors that no checkpoint needs any more."""
        while True:
            self.kv.trim(node)
            if node.is_live:
                return
            self.tree.note_death(node)
            if node.parent is None or node.parent.parent is None:
                return
            node = node.parent
            node.num_live_children -= 1

    def _drop(self, payloads: Sequence[Any]) -> None:
        """Tell whoever owns the memory of ``payloads`` that they are not needed any more."""
        if self._on_drop is not None:
            self._on_drop(payloads)

    def _become_kv_only(self, checkpoint: Checkpoint) -> None:
        checkpoint.is_kv_only = True
        self.rank(checkpoint)

    def _trim(self, checkpoint: Checkpoint, num_bytes: int) -> None:
        """Take back a KV-only checkpoint by as many segments as free ``num_bytes``, or drop it."""
        last_used = checkpoint.last_used
        num_segments = (
            -(-num_bytes // self.kv.segment_bytes) if self.kv.segment_bytes else checkpoint.position
        )
        position = checkpoint.position - num_segments * self.segment_tokens
        kept_anyway = checkpoint.position - exclusive_kv_tokens(checkpoint)
        if position > kept_anyway:
            node: Node | None = checkpoint.node
            while node is not None and node.start >= position:
                node = node.parent
            assert node is not None
            if node.checkpoint_at(position) is None:
                shorter = self._put(node, position, payload=None, num_bytes=0, tick=last_used)
                self._become_kv_only(shorter)
        self._remove(checkpoint)

    def _make_room(self, path: list[Node], node: Node, position: int, num_bytes: int) -> bool:
        """Evict until a checkpoint of ``num_bytes`` at ``position`` fits with its KV, or return False and
        evict nothing where what is pinned leaves too little.
        """
        excess = self._excess(path, position, num_bytes)
        if excess <= 0:
            return True
        if not self._can_fit(path, node, position, num_bytes):
            return False
        # A victim may take KV of this very path with it, so what is missing is counted anew each time.
        while excess > 0:
            checkpoint, worth = self._victim()
            self._eviction.note_eviction(checkpoint, worth)
            if checkpoint.is_kv_only:
                self._trim(checkpoint, excess)
            else:
                self.evict(checkpoint)
            excess = self._excess(path, position, num_bytes)
        return True

    def _pinned_bytes(self) -> int:
        """Return the bytes of what is pinned: states, and the KV before them."""
        pinned = self._pinned.values()
        kv = self.kv.needed_bytes((each.node, each.position) for each in pinned)
        return kv + sum(each.num_bytes for each in pinned)

    def _victim(self) -> tuple[Checkpoint, float]:
        """Return the checkpoint that is worth least. What comes to the top is ranked again first, so whatever
        became worth more in the meantime need not be ranked when it does.
        """
        self._rank_stale()
        while True:
            top = self._order.first(self._short_cell)
            assert top is not None
            if not self._order.enter(top[0], self._held_bytes(top[0])):
                return top

    def _held_bytes(self, checkpoint: Checkpoint, *, without: Set[int] = frozenset()) -> int:
        """Return the bytes that its eviction frees, after that of others, where the policy asks for them."""
        if not self._eviction.weighs_neighbours:
            return checkpoint.num_bytes
        kv_tokens = exclusive_kv_tokens(checkpoint, without=without)
        return checkpoint.num_bytes + kv_tokens * self.kv_bytes_per_token

    def _excess(self, path: list[Node], position: int, num_bytes: int) -> int:
        """Return by how much the budget is short for a checkpoint with its KV."""
        missing = self.kv.missing_bytes(path, position)
        if self._state_capacity is None:
            self._short_cell = None
            return self.stored_bytes + num_bytes + missing - self.capacity_bytes
        states = self.checkpoint_bytes + num_bytes - self._state_capacity
        kv = self.kv.num_bytes + missing - (self.capacity_bytes - self._state_capacity)
        # Any state makes room for a state; only what holds KV alone makes room for KV.
        self._short_cell = None if states > 0 else KV_CELL
        return states if states > 0 else kv

    def _can_fit(self, path: list[Node], node: Node, position: int, num_bytes: int) -> bool:
        """Return whether a checkpoint fits with its KV beside what is pinned."""
        sighting = path[0].sighting
        deepest = position
        states = num_bytes + sum(checkpoint.num_bytes for checkpoint in self._pinned.values())
        for checkpoint in self._pinned.values():
            if checkpoint.sighting is not sighting:
                pinned = ((c.node, c.position) for c in self._pinned.values())
                kv = self.kv.needed_bytes(((node, position), *pinned))
                break
            deepest = max(deepest, checkpoint.position)
        else:
            # Everything pinned lies on this path.
            kv = deepest // self.segment_tokens * self.kv.segment_bytes
        if self._state_capacity is None:
            return states + kv <= self.capacity_bytes
        return states <= self._state_capacity and kv <= self.capacity_bytes - self._state_capacity


@dataclass(frozen=True, slots=True)
class _KVOnly:
    """A source that has the KV of a prompt and no state."""

    source: PayloadSource

    def checkpoint(self, position: int) -> None:
        return None

    def kv_segments(self, start: int, end: int) -> Sequence[Any]:
        return self.source.kv_segments(start, end)


def _deepest_ever(node: Node, limit: int) -> int:
    """Return the deepest position of at most ``limit`` that this node holds or held a checkpoint at, or 0."""
    held = node.deepest_checkpoint(limit)
    return max(held.position if held else 0, _last_within(node.dropped, limit))


def _last_within(positions: list[int], limit: int) -> int:
    """Return the last of ascending ``positions`` that is at most ``limit``, or 0."""
    num_within = bisect_right(positions, limit)
    return positions[num_within - 1] if num_within else 0
