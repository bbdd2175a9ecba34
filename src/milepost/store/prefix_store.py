"""What is kept, within one hard byte budget: checkpoints on a radix tree, and the KV they need, no more.

The law of the store, recomputed by ``check_store``:

1. KV is kept exactly where a checkpoint needs it. A state at position ``p`` is useless without the keys
   and values of ``[0, p)``; keys and values beyond the last state of a path can never be resumed from, since
   the tokens have to run through the recurrent layers again anyway. So the KV of a path ends at its deepest
   checkpoint, is shared by all checkpoints beyond it, and leaves with the last of them.
2. Stored bytes never exceed the capacity, not even for a moment: room is made before anything is stored.
3. What a lease pins stays until the lease is released.
4. KV is cut at multiples of ``segment_tokens`` counted from the start of the prompt. A segment belongs to the
   exact tokens up to its end, so two prompts that diverge inside a segment have one each, and nothing is ever
   cut or shared on a guess.

A peer's policy may break law 1 (``keeps_kv``, :mod:`milepost.store.kv_tails`), and may split the budget
(``state_share``, :mod:`milepost.store.budget`).

Where a model has no recurrent state, any segment boundary can be resumed from, and a checkpoint is a
zero-byte *anchor* that only says how far KV is kept.

A checkpoint goes in one of three ways: it is *evicted* where memory is needed, *cleared* with all others, or
*removed* as if it had never been there.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, final

from milepost.store.budget import Budget
from milepost.store.checkpoint import Checkpoint
from milepost.store.eviction_policy import EvictionPolicy
from milepost.store.eviction_queue import EvictionQueue
from milepost.store.evictor import Evictor
from milepost.store.kv_tails import KVOnly, drop_shorter_tails
from milepost.store.lookup import Lookup, look_up
from milepost.store.node import Node
from milepost.store.promises import Promises
from milepost.store.resident_checkpoints import ResidentCheckpoints
from milepost.store.resident_kv import ResidentKV, node_at
from milepost.store.seen import SeenPrompt
from milepost.store.source import PayloadSource
from milepost.store.tree import InsertResult, RadixTree, TreeMatch
from milepost.tokens import KeyArray

__all__ = ["PrefixStore"]

# The tick before the first request.
_NEVER = 0
_NO_LIMIT = 1 << 62
# Ranking is best left until a victim is wanted, when most is known. Some is done ahead beyond this share.
_NEARLY_FULL = 15 / 16


@final
class PrefixStore:
    """See the module.

    Attributes:
        tree: The prompts seen.
        kv: The KV that is stored.
        budget: What all of it may take.
        queue: Which checkpoint goes next.
        promises: Which may not go for some time.
        checkpoints: Those that are stored.
        evictor: What evicts them.
    """

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
        state_bytes: int = 0,
        keeps_kv: bool = False,
        state_share: float | None = None,
        on_drop: Callable[[Sequence[Any]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_stateless = is_stateless
        self.tree = RadixTree(segment_tokens=segment_tokens, key_tokens=key_tokens)
        self._drop = on_drop or _nobody_asks
        self.kv = ResidentKV(
            segment_tokens=segment_tokens, bytes_per_token=kv_bytes_per_token, drop=self._drop
        )
        self.budget = Budget(capacity_bytes, state_share=state_share, kv=self.kv)
        self.queue = EvictionQueue(eviction, kv_bytes_per_token=kv_bytes_per_token)
        self._eviction = eviction
        self._state_bytes = state_bytes
        self._history_keys = history_tokens // key_tokens
        self.checkpoints = ResidentCheckpoints(
            tree=self.tree,
            kv=self.kv,
            budget=self.budget,
            queue=self.queue,
            drop=self._drop,
            is_stateless=is_stateless,
            weighs_neighbours=eviction.weighs_neighbours,
        )
        self.promises = Promises(
            checkpoints=self.checkpoints,
            queue=self.queue,
            kv=self.kv,
            budget=self.budget,
            is_stateless=is_stateless,
            clock=clock,
        )
        self.evictor = Evictor(
            eviction,
            checkpoints=self.checkpoints,
            kv=self.kv,
            budget=self.budget,
            queue=self.queue,
            promises=self.promises,
            keeps_kv=keeps_kv,
        )

    def look_up(
        self, keys: KeyArray, *, num_tokens: int, tenant: str, limit: int, resume_limit: int | None = None
    ) -> Lookup:
        """Find the deepest resumable position of at most ``limit`` tokens. Reads only."""
        return look_up(
            self.tree.match(keys, tenant=tenant),
            self.kv,
            num_tokens=num_tokens,
            limit=limit,
            resume_limit=_NO_LIMIT if resume_limit is None else resume_limit,
            is_stateless=self.is_stateless,
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

    def kv_segments(self, found: Lookup) -> list[Any]:
        """Return the KV payloads of the whole segments before the resume position, in order."""
        return self.kv.payloads(found.match.path, found.resume_position)

    def pin(self, checkpoint: Checkpoint) -> None:
        """Protect ``checkpoint`` and its KV from eviction until as many :meth:`unpin` calls."""
        self.queue.pin(checkpoint)

    def unpin(self, checkpoint: Checkpoint) -> None:
        """Undo one :meth:`pin`."""
        if self.queue.unpin(checkpoint) and checkpoint.last_used == _NEVER:
            # An anchor that only held a place for a request that came to nothing, or one that is not wanted
            # any more.
            self.checkpoints.remove(checkpoint)

    def pin_resumed(self, found: Lookup) -> Checkpoint | None:
        """Pin what a request resumes from, and return it. Where that is KV alone, an anchor is put there, so
        that there is something to pin; it goes when it is unpinned, unless it was touched.
        """
        checkpoint = found.checkpoint
        if checkpoint is None:
            if found.resume_position == 0:
                return None
            node = node_at(found.match.path, found.resume_position)
            checkpoint = self.checkpoints.add(
                node, found.resume_position, payload=None, num_bytes=0, tick=_NEVER
            )
        self.pin(checkpoint)
        return checkpoint

    def touch(self, checkpoint: Checkpoint, *, tick: int) -> None:
        """Note that a pinned ``checkpoint`` was used: resumed from, or captured again."""
        assert checkpoint.num_pins > 0
        checkpoint.last_used = tick

    def remember(
        self, keys: KeyArray, *, tenant: str, prompt: SeenPrompt, match: TreeMatch | None = None
    ) -> InsertResult:
        """Add a prompt to the history, which owns its path from now on, and let the policy learn."""
        inserted = self.tree.insert(keys, tenant=tenant, prompt=prompt, match=match)
        self.queue.note_new_owner(prompt)
        reranking = self._eviction.note_request(inserted)
        self.queue.rerank(reranking)
        if self.budget.stored_bytes > _NEARLY_FULL * self.budget.capacity_bytes:
            self.queue.rank_ahead()
        return inserted

    def extend(
        self, keys: KeyArray, *, tenant: str, prompt: SeenPrompt, num_tokens: int
    ) -> list[Node] | None:
        """Let a prompt of the history go on, up to ``num_tokens``; return its path, or None where it does not
        own that any more: then nothing has changed.
        """
        match = self.tree.match(keys, tenant=tenant)
        if not self.is_owned(match, by=prompt):
            return None
        path = self.tree.insert(keys, tenant=tenant, prompt=prompt, match=match).path
        # Of several answers, the longest.
        prompt.num_tokens = max(prompt.num_tokens, num_tokens)
        self._eviction.note_extended(prompt)
        for checkpoint in prompt.owned.values():
            self.queue.mark_stale(checkpoint)
        return path

    def is_owned(self, match: TreeMatch, *, by: SeenPrompt) -> bool:
        """Return whether it is still ``by`` that owns the end of a matched path."""
        return bool(match.path) and match.path[-1].owner is by

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
            self.checkpoints.remove(present)
        payload = None if self.is_stateless else source.checkpoint(position)
        num_bytes = 0 if payload is None else int(payload.num_bytes)
        if not self.evictor.make_room(path, position, num_bytes):
            self._drop((payload,))
            return None
        resident, aligned = self.kv.reach(path), self.kv.aligned(position)
        if aligned > resident:
            self.kv.fill(path, source.kv_segments(resident, aligned))
        checkpoint = self.checkpoints.add(node, position, payload=payload, num_bytes=num_bytes, tick=tick)
        if cost is not None:
            checkpoint.cost = cost
        return checkpoint

    def make_room(self, path: list[Node], positions: Sequence[int]) -> None:
        """Evict, at once, what a whole plan needs, where it fits beside what is pinned; else nothing.

        Putting its checkpoints one by one comes to the same, and ranks their neighbours each time.
        """
        if positions and not self.is_stateless:
            self.evictor.make_room(path, positions[-1], len(positions) * self._state_bytes)

    def keep_kv(self, path: list[Node], num_tokens: int, *, source: PayloadSource, tick: int) -> None:
        """Keep the KV of a whole prompt, as far as there is room, whether or not a state needs it."""
        position = self.kv.aligned(num_tokens)
        drop_shorter_tails(self.checkpoints, path, position)
        if position and node_at(path, position).checkpoint_at(position) is None:
            # Also where the KV is kept by longer prompts: it is not as old as theirs.
            tail = self.put(path, position, source=KVOnly(source), tick=tick)
            if tail is not None:
                self.checkpoints.keep_as_kv_only(tail)

    def forget_history(self) -> None:
        """Forget the oldest prompts without checkpoints beyond ``history_tokens``."""
        if self.tree.num_keys > self._history_keys:
            self._note_forgotten(self.tree.forget(until_num_keys=self._history_keys))

    def clear(self) -> None:
        """Take out every checkpoint that nothing pins; what was learned stays."""
        self.promises.release_all()
        for checkpoint in self.queue.checkpoints():
            if not checkpoint.is_kv_only:
                node = checkpoint.node
                node.cleared = tuple(sorted((*node.cleared, checkpoint.position)))
            self.checkpoints.remove(checkpoint)

    def forget_tenant(self, tenant: str) -> int:
        """Take out all that a tenant has, for good; what a lease pins goes when it is released, and then only
        the tokens stay, as history. Return how many checkpoints went at once. O(nodes of the tenant).
        """
        num_removed = num_pinned = 0
        for node in list(self.tree.nodes(tenant=tenant)):
            for checkpoint in list(node.checkpoints):
                self.promises.release(checkpoint)
                if checkpoint.num_pins:
                    checkpoint.last_used = _NEVER
                    num_pinned += 1
                else:
                    self.checkpoints.remove(checkpoint)
                    num_removed += 1
        if not num_pinned:
            self._note_forgotten(self.tree.forget_tenant(tenant))
        return num_removed

    def _note_forgotten(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self._eviction.note_forgotten(node)


def _nobody_asks(payloads: Sequence[Any]) -> None:
    """Leave it to the garbage collector to free ``payloads``."""
