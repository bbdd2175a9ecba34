"""The prefix cache of an engine that owns the memory: what such an engine has to say beside the three verbs.

An engine such as vLLM keeps states and KV in a pool of its own. Its answers go on after their prompts; it may
lose what it had promised; its pool grows, shrinks and is emptied; and models, or tenants, go for good.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

from milepost.byte_size import parse_bytes
from milepost.errors import InvalidRequestError
from milepost.lease import Lease, require_lease
from milepost.placement import as_placement
from milepost.policies import Situation, place
from milepost.prefix_cache import PrefixCache
from milepost.store import (
    Checkpoint,
    Lookup,
    Outline,
    PayloadSource,
    checkpoints_beyond,
    know_prompt,
    outline,
    require_source,
)
from milepost.tokens import KeyArray, TokenLike, as_prompt, common_prefix_length

__all__ = ["HostedCache"]


@final
class HostedCache(PrefixCache):
    """See the module, and :class:`~milepost.prefix_cache.PrefixCache` for its arguments."""

    def extend(self, lease: Lease, tokens: TokenLike, source: PayloadSource, *, unasked: bool = False) -> int:
        """Let the prompt of a committed ``lease`` go on as its answer does, and store a checkpoint at the end
        if that is worth it. This is no request: nothing is counted, and no overlap learned.

        Args:
            lease: Committed; it may be released.
            tokens: The prompt and its answer so far, whole grid steps of them; as for :meth:`acquire`.
            source: Hands out the payloads.
            unasked: Store it without asking the policy, for an engine that makes no other state of an
                answer; what it is worth decides how long it stays.

        Returns:
            The position stored, 0 if none.

        Raises:
            InvalidRequestError: the lease is not committed here; the tokens do not begin with its prompt; or
                the source hands out what breaks a rule. Nothing is changed, nor where the source raises.

        Complexity: O(num_tokens), and what one plan takes.
        """
        require_lease(lease)
        lease.require_committed(self._store)
        require_source(source)
        keys = self._checked_answer(lease, tokens)
        store, prompt, position = self._store, lease.situation.prompt, self._last_position(keys)
        # The end of the keys is not the end of the answer.
        num_tokens = keys.size * self.key_tokens + 1
        found = store.look_up(keys, num_tokens=num_tokens, tenant=lease.tenant, limit=position)
        if not store.is_owned(found.match, by=prompt):
            return 0
        is_wanted = position > found.resume_position and (
            unasked or position in self._planned_answer(lease, found)
        )
        positions = (position,) if is_wanted else ()
        costs = self.footprint.costs_before(positions)
        delivery = self._collector.collect(
            source, found.match, positions, kv_end=max((0, *positions)), resumed_from=None
        )
        with self._drops.gathered(delivery):
            path = store.extend(keys, tenant=lease.tenant, prompt=prompt, num_tokens=num_tokens)
            if path is None or not positions:
                return 0
            tick = self._ledger.num_requests
            stored = store.put(path, position, source=delivery, tick=tick, cost=costs[0])
        return 0 if stored is None else position

    def know(self, tokens: TokenLike, *, num_tokens: int, tenant: str, had: Sequence[int] = ()) -> None:
        """Remember a prompt of an earlier process, or of another tier. It is no request.

        Args:
            tokens: As much of it as is known; as for :meth:`acquire`.
            num_tokens: Length of the whole prompt.
            tenant: Whose it is.
            had: Where it had checkpoints, ascending: a token lost since then counts as ``reset``.

        Complexity: O(tokens).
        """
        keys, _ = as_prompt(tokens, num_tokens=None, key_tokens=self.key_tokens)
        store = self._store
        know_prompt(store.tree, store.queue, keys, tenant=tenant, num_tokens=num_tokens, had=had)
        store.forget_history()

    def adopt(
        self, tokens: TokenLike, source: PayloadSource, *, num_tokens: int, tenant: str
    ) -> Checkpoint | None:
        """Store the checkpoint at the end of ``tokens`` that another tier has. This is no request: nothing is
        counted, and no overlap learned.

        Args:
            tokens: Whole grid steps of a prompt.
            source: Hands out the payloads; asked only where there is room for them beside what is pinned.
            num_tokens: Length of the whole prompt.
            tenant: Whose it is.

        Returns:
            The checkpoint, which may have been there; None where there is no room.

        Raises:
            InvalidRequestError: the tokens end off the grid, or the source hands out what breaks a rule.
                Nothing is stored, nor where the source raises.

        Complexity: O(tokens + checkpoints evicted · log checkpoints stored).
        """
        require_source(source)
        keys, position = as_prompt(tokens, num_tokens=None, key_tokens=self.key_tokens)
        if position % self.grid:
            raise InvalidRequestError(f"{position} tokens end off the grid of {self.grid}; give whole steps")
        store = self._store
        path = know_prompt(store.tree, store.queue, keys, tenant=tenant, num_tokens=num_tokens)
        if not store.evictor.can_hold(path, position, self.footprint.checkpoint_bytes_at(position)):
            return None
        match = store.tree.match(keys, tenant=tenant)
        delivery = self._collector.collect(source, match, (position,), kv_end=position, resumed_from=None)
        with self._drops.gathered(delivery):
            path = know_prompt(store.tree, store.queue, keys, tenant=tenant, num_tokens=num_tokens)
            (cost,) = self.footprint.costs_before((position,))
            tick = self._ledger.num_requests + 1
            adopted = store.put(path, position, source=delivery, tick=tick, cost=cost)
        store.forget_history()
        return adopted

    def outline(self, *, slower: Sequence["HostedCache"] = (), most_nodes: int = 48) -> Outline:
        """Return the top of the tree of prompts with its checkpoints, and where ``slower`` tiers have some on
        the same prompts. Reads only. O(most_nodes), and the lengths of the prompts shown where there are
        slower tiers.
        """
        stores = [cache._store for cache in slower]
        return outline(self._store, others=stores, most_nodes=most_nodes)

    def evict_beyond(self, tokens: TokenLike, position: int, *, tenant: str) -> int:
        """Evict every checkpoint that needs the tokens of a prompt up to ``position``, whose KV its owner
        lost; what leases pin stays. Return how many. O(checkpoints beyond).
        """
        keys, _ = as_prompt(tokens, num_tokens=None, key_tokens=self.key_tokens)
        found = checkpoints_beyond(self._store.tree.match(keys, tenant=tenant), position)
        for checkpoint in found:
            self._store.promises.release(checkpoint)
        return sum(self.evict(checkpoint) for checkpoint in found)

    def forget_everything(self) -> int:
        """Take out all that anybody has; what leases pin goes once they are released. Return how many
        checkpoints went at once.
        """
        return self.forget_tenants(lambda tenant: True)

    def note_copy(self, checkpoint: Checkpoint, reload_cost: float) -> None:
        """Note what it costs to bring ``checkpoint`` back from where a copy of it lies; infinite where
        none does any more. Harmless where it is gone.
        """
        if checkpoint.is_stored and checkpoint.reload_cost != reload_cost:
            checkpoint.reload_cost = reload_cost
            self._store.queue.mark_stale(checkpoint)

    def confirm(self, lease: Lease, is_intact: Callable[[Any], bool]) -> int:
        """Release ``lease``, committed before its states were captured, and take out those whose payload is
        not intact, as if they had not been placed. Return how many. What another lease pins is left to that.

        Raises:
            InvalidRequestError: the lease is another cache's.
        """
        require_lease(lease)
        lease.require_of(self._store)
        pinned = lease.pinned
        lease.release()
        num_lost = 0
        for checkpoint in pinned:
            if checkpoint.is_stored and not is_intact(checkpoint.payload):
                self._store.promises.release(checkpoint)
                if checkpoint.may_go:
                    self._store.checkpoints.remove(checkpoint)
                    num_lost += 1
        return num_lost

    def evict(self, checkpoint: Checkpoint) -> bool:
        """Evict ``checkpoint``, whose memory its owner has taken or wants. Return False, and change nothing,
        where a lease pins it, or it is gone already.
        """
        if not checkpoint.may_go:
            return False
        self._store.evictor.evict(checkpoint)
        return True

    def resize(self, capacity_bytes: int | str) -> None:
        """Change the budget. The least worth goes until it is kept; what leases pin, once they are released.

        Raises:
            ConfigurationError: it is no amount of memory.
        """
        self._store.budget.resize(parse_bytes(capacity_bytes))
        self._store.promises.bound()
        self._store.evictor.shrink()

    def worth_of_kv(self, checkpoint: Checkpoint) -> float:
        """Return what a stored ``checkpoint`` is worth for each token of KV that nothing else needs, for an
        owner that keeps KV in a memory of its own. Only to be compared with others, and about right: as
        it was ranked last, which is below twice of what ranking it anew would give, and above half of it but
        for one in several hundred (on made-up traffic; for 92 of 100 and more it is that). O(1), and to rank
        it where it is marked for that.
        """
        return self._store.queue.worth_of_kv(checkpoint)

    def worth_per_byte(self, checkpoint: Checkpoint) -> float:
        """Return what a stored ``checkpoint`` is worth for each byte that it frees, about right as in
        :meth:`worth_of_kv`: for an owner that evicts by a rule of its own and wants to know what that costs.
        """
        return self._store.queue.worth_per_byte(checkpoint)

    def evict_least(self, *, is_held: Callable[[Any], bool] | None = None) -> bool:
        """Evict the checkpoint that is worth least, for an engine that needs its memory; return whether
        there was one that no lease pins.

        Args:
            is_held: Says of a payload whether its owner cannot part with it just now; then the next goes.
        """
        store = self._store
        held: list[Checkpoint] = []
        while is_held is not None and (least := store.evictor.least()) is not None and is_held(least.payload):
            store.pin(least)
            held.append(least)
        did_evict = store.evictor.evict_least()
        for checkpoint in held:
            store.unpin(checkpoint)
        return did_evict

    def clear(self) -> None:
        """Take out all checkpoints that no lease pins. What was learned stays; who misses them is told apart
        from who misses what was evicted.
        """
        self._store.clear()

    def forget_tenants(self, is_gone: Callable[[str], bool]) -> int:
        """Take out all that tenants have who will never come again; what leases pin goes once they are
        released.

        Args:
            is_gone: Says so of a tenant.

        Returns:
            How many checkpoints went at once.

        Complexity: O(tenants + nodes of those that are gone).
        """
        gone = [tenant for tenant in self._store.tree.tenants() if is_gone(tenant)]
        return sum(self._store.forget_tenant(tenant) for tenant in gone)

    def _checked_answer(self, lease: Lease, tokens: TokenLike) -> KeyArray:
        keys, _ = as_prompt(tokens, num_tokens=None, key_tokens=self.key_tokens)
        if common_prefix_length(keys, lease.tokens) < lease.tokens.size:
            raise InvalidRequestError(
                f"the {keys.size} tokens or keys given do not begin with the {lease.tokens.size} of the "
                "lease's prompt; give the prompt and its answer so far"
            )
        return keys

    def _last_position(self, keys: KeyArray) -> int:
        return keys.size * self.key_tokens // self.grid * self.grid

    def _planned_answer(self, lease: Lease, found: Lookup) -> Sequence[int]:
        """Return where the policy places checkpoints on the prompt of ``lease`` with its answer, of which
        ``found`` is stored.
        """
        prompt, placement = lease.situation.prompt, self.policy.placement
        situation = Situation.of(found, prompt, store=self._store, limits=self._limits)
        # All but the last token will be known by then, as this very prompt's.
        situation.request = replace(
            situation.request, overlap_depth=found.num_tokens - 1, matched_num_tokens=None
        )
        situation.earlier = None
        # The engine has the state anyway.
        placed = place(placement, situation, given_positions=(), capture_tokens=0)
        return as_placement(placed, situation.request, by=placement).positions
