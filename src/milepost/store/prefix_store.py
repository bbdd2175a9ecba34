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

Where a model has no recurrent state, any segment boundary can be resumed from, and a checkpoint is a
zero-byte *anchor* that only says how far KV is kept.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from milepost.store.eviction import EvictionOrder, EvictionPolicy
from milepost.store.node import Checkpoint, Node, Payload
from milepost.store.tree import RadixTree
from milepost.tokens import TokenArray

__all__ = ["Located", "PayloadSource", "PrefixStore"]

_position_of = attrgetter("position")
# The tick before the first request.
_NEVER = 0


class PayloadSource(Protocol):
    """Where payloads come from. KV is asked for only once there is room for it."""

    def checkpoint(self, position: int) -> Payload:
        """Return the state captured after ``position`` tokens."""

    def kv_segments(self, start: int, end: int) -> Sequence[Any]:
        """Return one payload for each KV segment of ``[start, end)``, both multiples of the segment."""


@dataclass(frozen=True, slots=True)
class Located:
    """What the store holds for a prompt.

    Attributes:
        overlap_depth: Leading tokens that some earlier prompt of the tenant shares.
        resume_position: The deepest position to resume from, 0 where there is none.
        checkpoint: The checkpoint at ``resume_position``; None at 0, and where KV alone is resumed from.
        reached_position: The deepest usable position that was ever stored, evicted since or not.
        checkpoint_positions: Every stored checkpoint along the shared part.
        matched_num_tokens: Length of the latest prompt that shares it all; None where nothing is shared.
        path: Nodes of the shared part.
    """

    overlap_depth: int
    resume_position: int
    checkpoint: Checkpoint | None
    reached_position: int
    checkpoint_positions: tuple[int, ...]
    matched_num_tokens: int | None
    path: tuple[Node, ...]


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
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.segment_tokens = segment_tokens
        self.kv_segment_bytes = segment_tokens * kv_bytes_per_token
        self.is_stateless = is_stateless
        self.history_tokens = history_tokens
        self.num_kv_segments = 0
        self.checkpoint_bytes = 0
        self.num_checkpoints = 0
        self.num_evictions = 0
        self.tree = RadixTree(segment_tokens=segment_tokens)
        self._order = EvictionOrder(eviction)
        self._pinned: dict[int, Checkpoint] = {}
        self._next_serial = 0

    @property
    def kv_bytes(self) -> int:
        """Bytes of all KV segments."""
        return self.num_kv_segments * self.kv_segment_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of KV and checkpoints together, never above the capacity."""
        return self.kv_bytes + self.checkpoint_bytes

    def locate(
        self, tokens: TokenArray, *, tenant: str, limit: int, resume_limit: int | None = None
    ) -> Located:
        """Find the deepest resumable position of at most ``limit`` tokens. Reads only.

        ``resume_limit`` holds a resume back further, without a say in what counts as reached.
        """
        match = self.tree.match(tokens, tenant=tenant)
        usable = min(match.depth, limit)
        resumable = usable if resume_limit is None else min(usable, resume_limit)
        deepest: Checkpoint | None = None
        reached = 0
        positions: list[int] = []
        for node in match.path:
            positions += [c.position for c in node.checkpoints if c.position <= match.depth]
            deepest = node.deepest_checkpoint(resumable) or deepest
            reached = max(reached, _deepest_ever(node, usable))
        resume = deepest.position if deepest is not None else 0
        if self.is_stateless:
            aligned = usable // self.segment_tokens * self.segment_tokens
            resume = min(
                resumable // self.segment_tokens * self.segment_tokens, self._resident_tokens(match.path)
            )
            reached = min(aligned, self._leading_tokens(match.path, lambda node: node.num_kv_reached))
            deepest = next((c for n in match.path if (c := n.checkpoint_at(resume))), None)
        return Located(
            overlap_depth=match.depth,
            resume_position=resume,
            checkpoint=deepest,
            reached_position=max(reached, resume),
            checkpoint_positions=tuple(positions),
            matched_num_tokens=match.path[-1].latest_num_tokens if match.path else None,
            path=match.path,
        )

    def kv_segments(self, located: Located) -> list[Any]:
        """Return the KV payloads of the whole segments before the resume position, in order."""
        needed = located.resume_position // self.segment_tokens
        segments: list[Any] = []
        for node in located.path:
            segments += node.kv
            if len(segments) >= needed:
                break
        return segments[:needed]

    def pin(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint`` and its KV from eviction until as many :meth:`unpin` calls."""
        if checkpoint.num_pins == 0:
            self._order.leave(checkpoint)
            self._pinned[checkpoint.serial] = checkpoint
        checkpoint.num_pins += 1

    def unpin(self, checkpoint: Checkpoint) -> None:
        """Undo one :meth:`pin`."""
        checkpoint.num_pins -= 1
        if checkpoint.num_pins == 0:
            del self._pinned[checkpoint.serial]
            self._order.enter(checkpoint)
            if checkpoint.last_used == _NEVER:
                # An anchor that only held a place for a request that came to nothing.
                self._remove(checkpoint)

    def anchor(self, located: Located) -> Checkpoint | None:
        """Return the checkpoint at the resume position; where KV alone is resumed from, put an anchor there
        so that there is something to pin.
        """
        if located.checkpoint is None and located.resume_position > 0:
            node = next(n for n in located.path if n.start < located.resume_position <= n.end)
            return self._put(node, located.resume_position, payload=None, num_bytes=0, tick=_NEVER)
        return located.checkpoint

    def touch(self, checkpoint: Checkpoint, *, tick: int) -> None:
        """Note that a pinned ``checkpoint`` was used: resumed from, or captured again."""
        assert checkpoint.num_pins > 0
        checkpoint.last_used = tick

    def remember(self, tokens: TokenArray, *, tenant: str) -> list[Node]:
        """Add a prompt to the history and return its path."""
        return self.tree.insert(tokens, tenant=tenant)

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Return whether ``checkpoint`` is stored still."""
        return checkpoint in self._order or checkpoint.serial in self._pinned

    def put(self, path: list[Node], position: int, *, source: PayloadSource, tick: int) -> Checkpoint | None:
        """Store a checkpoint at ``position`` of the prompt along ``path``, with the KV it needs.

        Returns:
            The checkpoint (the one already there, if any), or None where the budget cannot hold it beside
            what is pinned. Nothing is evicted in vain.
        """
        node = next(n for n in path if n.start < position <= n.end)
        if (present := node.checkpoint_at(position)) is not None:
            return present
        payload = None if self.is_stateless else source.checkpoint(position)
        num_bytes = 0 if payload is None else payload.num_bytes
        if not self._make_room(path, node, position, num_bytes):
            return None
        resident = self._resident_tokens(path)
        aligned = position // self.segment_tokens * self.segment_tokens
        if aligned > resident:
            self._fill_kv(path, source.kv_segments(resident, aligned))
        return self._put(node, position, payload=payload, num_bytes=num_bytes, tick=tick)

    def forget_history(self) -> None:
        """Drop the oldest prompts without checkpoints beyond ``history_tokens``."""
        self.tree.forget(until_num_tokens=self.history_tokens)

    def evict(self, checkpoint: Checkpoint) -> None:
        """Drop an unpinned ``checkpoint`` and the KV that no other needs. O(KV segments freed + depth)."""
        insort(checkpoint.node.dropped, checkpoint.position)
        self.num_evictions += 1
        self._remove(checkpoint)

    def ranked_or_pinned(self) -> tuple[int, int]:
        """Return how many checkpoints may be evicted, and how many may not."""
        return len(self._order), len(self._pinned)

    def is_ranked(self, checkpoint: Checkpoint) -> bool:
        """Return whether ``checkpoint`` may be evicted."""
        return checkpoint in self._order

    def _remove(self, checkpoint: Checkpoint) -> None:
        self._order.leave(checkpoint)
        checkpoint.node.checkpoints.remove(checkpoint)
        # Whoever still knows the checkpoint must not keep its memory alive.
        checkpoint.payload = None
        self.checkpoint_bytes -= checkpoint.num_bytes
        self.num_checkpoints -= 1
        self._release_kv(checkpoint.node)

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
        if position in node.dropped:
            node.dropped.remove(position)
        self.checkpoint_bytes += num_bytes
        self.num_checkpoints += 1
        self._order.enter(checkpoint)
        self._spread_life(node, was_live=was_live)
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
            needed = node.num_segments_needed(self.segment_tokens)
            self.num_kv_segments -= len(node.kv) - needed
            del node.kv[needed:]
            if node.is_live:
                return
            self.tree.note_death(node)
            if node.parent is None or node.parent.parent is None:
                return
            node = node.parent
            node.num_live_children -= 1

    def _resident_tokens(self, path: Iterable[Node]) -> int:
        """Return how many leading tokens of ``path`` have their KV stored without a gap."""
        return self._leading_tokens(path, lambda node: len(node.kv))

    def _leading_tokens(self, path: Iterable[Node], segments_of: Callable[[Node], int]) -> int:
        """Return the tokens of the segments that ``segments_of`` counts, from the start to the first gap."""
        segments = 0
        for node in path:
            counted = segments_of(node)
            segments += counted
            if counted < node.num_segments_to(node.end, self.segment_tokens):
                break
        return segments * self.segment_tokens

    def _fill_kv(self, path: list[Node], payloads: Sequence[Any]) -> None:
        """Hand ``payloads``, the first segments not resident, to the nodes that hold their last tokens."""
        taken = 0
        for node in path:
            room = node.num_segments_to(node.end, self.segment_tokens) - len(node.kv)
            if room > 0:
                node.kv += payloads[taken : taken + room]
                node.num_kv_reached = max(node.num_kv_reached, len(node.kv))
                taken = min(taken + room, len(payloads))
        self.num_kv_segments += len(payloads)

    def _make_room(self, path: list[Node], node: Node, position: int, num_bytes: int) -> bool:
        """Evict until a checkpoint of ``num_bytes`` at ``position`` fits with its KV, or return False and
        evict nothing where what is pinned leaves too little.
        """
        if self.stored_bytes + num_bytes + self._missing_kv_bytes(path, position) <= self.capacity_bytes:
            return True
        if self._pinned_bytes(also=(node, position)) + num_bytes > self.capacity_bytes:
            return False
        # A victim may take KV of this very path with it, so what is missing is counted anew each time.
        while self.stored_bytes + num_bytes + self._missing_kv_bytes(path, position) > self.capacity_bytes:
            victim = self._order.first()
            assert victim is not None
            self.evict(victim)
        return True

    def _missing_kv_bytes(self, path: list[Node], position: int) -> int:
        """Return the bytes of the KV before ``position`` that are not stored."""
        num_missing = position // self.segment_tokens - self._resident_tokens(path) // self.segment_tokens
        return max(0, num_missing) * self.kv_segment_bytes

    def _pinned_bytes(self, *, also: tuple[Node, int]) -> int:
        """Return the bytes that no eviction can free: pinned checkpoints and the KV they need, with the KV
        of one more checkpoint at a node and position.
        """
        needed: dict[Node, int] = {}
        for node, position in (also, *((c.node, c.position) for c in self._pinned.values())):
            while node.parent is not None:
                segments = node.num_segments_to(min(position, node.end), self.segment_tokens)
                if needed.get(node, -1) >= segments:
                    break
                needed[node] = segments
                node = node.parent  # noqa: PLW2901 (a walk to the root)
        states = sum(checkpoint.num_bytes for checkpoint in self._pinned.values())
        return states + sum(needed.values()) * self.kv_segment_bytes


def _deepest_ever(node: Node, limit: int) -> int:
    """Return the deepest position of at most ``limit`` that this node holds or held a checkpoint at, or 0."""
    held = node.deepest_checkpoint(limit)
    num_dropped = bisect_right(node.dropped, limit)
    return max(held.position if held else 0, node.dropped[num_dropped - 1] if num_dropped else 0)
