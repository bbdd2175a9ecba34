"""Decides for one vLLM scheduler what to keep, and keeps the account.

A request comes by five times:

    look_up      it is about to be admitted: how far does it follow earlier prompts, and where are its stops?
    admit        it has its blocks: its checkpoints are committed, as promises
    next_stop    where does its next prefill chunk have to end?
    note_step    its last promise is kept: whatever vLLM holds of them can be evicted from now on
    close        it is gone, served or not: promises that were not kept are taken back

vLLM's lookup is the truth: where it finds less than the cache believes to be there, the belief goes.

Nobody waits for the cache to take in what ``admit`` and ``note_step`` say. That is done in ``catch_up``,
while the model computes; or before anything else that reads or changes the cache, so that it decides as if it
were done at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, final

from milepost.accounting import CacheStatistics
from milepost.hosted_cache import HostedCache
from milepost.placement import Placement
from milepost.policies import CachePolicy, load_lessons, save_lessons
from milepost.vllm.belief import acquire_as_found
from milepost.vllm.counts import StewardCounts
from milepost.vllm.following import Following
from milepost.vllm.layout import PoolLayout
from milepost.vllm.leading import Leader
from milepost.vllm.options import Options
from milepost.vllm.pool import BlockMemory
from milepost.vllm.step_cost import StepCost
from milepost.vllm.stops import StopPlanner
from milepost.vllm.ticket import PromptBlocks, Stage, Ticket, hash_keys

__all__ = ["Steward", "StewardCounts"]

# Stock vLLM gives all KV a hash, and asks nobody for room.
_ALL_TOKENS = _NO_LIMIT = 1 << 60

# A remembered token takes 8 bytes for every block hash: next to nothing.
_HISTORY_PER_POOL = 30


@final
class Steward:
    """See the module.

    Args:
        layout: How caches lie in the pool.
        memory: The pool.
        policy: Places and evicts.
        options: The plugin's settings.
    """

    def __init__(
        self, *, layout: PoolLayout, memory: BlockMemory, policy: CachePolicy, options: Options | None = None
    ) -> None:
        options = options or Options()
        self._learned = options.learned
        self.layout = layout
        self.counts = StewardCounts()
        self.policy = policy
        self._memory = memory
        history = options.history_tokens
        new_cache = partial(
            HostedCache,
            footprint=layout.footprint,
            grid=layout.grid_tokens,
            segment_tokens=layout.block_tokens,
            key_tokens=layout.match_tokens,
            history_tokens=_HISTORY_PER_POOL * layout.capacity if history is None else history,
            max_checkpoints=options.max_stops,
        )
        learned_from = self._learned if self._learned is not None and self._learned.exists() else None
        if learned_from is not None:
            load_lessons(policy, learned_from)
        self._cache = new_cache(capacity_bytes=layout.capacity, policy=policy, on_drop=self._forget)
        self._following = Following(self._cache, memory)
        #: What a stop costs; told of the steps by whoever runs them.
        self.step_cost = StepCost()
        self._stop_tokens = options.stop_tokens
        self._planner = StopPlanner(
            self._cache,
            memory=memory,
            layout=layout,
            max_stops=options.max_stops,
            stop_tokens=self._cost_of_a_stop,
        )
        self._leader = Leader(
            layout,
            policy=policy,
            learned_from=learned_from,
            make_cache=lambda capacity, rule: new_cache(capacity_bytes=capacity, policy=rule),
            stop_tokens=self._cost_of_a_stop,
        )
        self._tickets: dict[str, Ticket] = {}
        # Requests that the cache has to be told of.
        self._behind: list[Ticket] = []
        # Tokens behind the last whole hash of each prompt: to be computed, whatever was seen.
        self._num_untold = 0

    def look_up(
        self,
        request_id: str,
        block_hashes: Sequence[bytes],
        num_tokens: int,
        *,
        hit: int,
        shared: int = 0,
        may_hit: bool = True,
        breakpoints: Sequence[int] = (),
    ) -> None:
        """Plan a request that vLLM found ``hit`` tokens of. Called anew for as long as it waits, and when it
        was preempted.

        Args:
            request_id: vLLM's.
            block_hashes: Of all whole blocks of ``match_tokens`` tokens of the prompt.
            num_tokens: Length of the prompt.
            hit: Tokens that it will resume from.
            shared: Tokens up to which vLLM has seen that it is shared, where those are more; else 0.
            may_hit: False where the request must not read the cache, whatever is there.
            breakpoints: Positions of its messages' ends, where the client said so.
        """
        self.catch_up()
        ticket = self._tickets.get(request_id)
        if ticket is not None and ticket.stage is not Stage.WAITING:
            # What it was to keep is kept or lost.
            self._settle(ticket)
            ticket.stops, ticket.kv_limit = (), hit
            if ticket.stage is not Stage.PREEMPTED:
                ticket.enter(Stage.PREEMPTED)
            return
        if ticket is not None:
            del self._tickets[request_id]
            ticket.lease.release()
        match_tokens = self.layout.match_tokens
        if not self.layout.grid_tokens < num_tokens < (len(block_hashes) + 1) * match_tokens:
            # Too short to be resumed, or not hashed.
            return
        # Depths are known in whole match units, so the length is told in them too: a rest of many tokens
        # would blur how far from its end a prompt was shared.
        num_told = num_tokens // match_tokens * match_tokens + (num_tokens % match_tokens > 0)
        num_untold = num_tokens - num_told
        breakpoints = [position for position in breakpoints if position <= num_told]
        keys = hash_keys(block_hashes, num_told, match_tokens)
        lease, num_stale = acquire_as_found(
            self._cache, self._memory, keys, num_told, hit=hit, may_hit=may_hit, breakpoints=breakpoints
        )
        self.counts.stale += num_stale
        if lease.checkpoint is not None and shared < hit + self.layout.block_tokens:
            # Stock vLLM would keep a state here now.
            self._following.note_used(lease.checkpoint)
        stops, given = self._planner.plan(
            lease, num_tokens, hit=hit, shared=shared, leads=self.is_led_by_learning
        )
        prompt = PromptBlocks(block_hashes, self.layout, self._memory)
        self._tickets[request_id] = Ticket(lease, prompt, hit, stops, given, num_untold)

    def next_stop(self, request_id: str, start: int, end: int) -> int:
        """Return where a chunk of ``[start, end)`` has to end."""
        ticket = self._ticket(request_id)
        if ticket is None or ticket.stage in (Stage.SETTLED, Stage.PREEMPTED):
            return end
        for position in ticket.stops:
            if start < position < end:
                return position
        return end

    def admit(self, request_id: str) -> tuple[int, ...]:
        """Promise the checkpoints of a request that has its blocks, once; return those to keep, ascending."""
        ticket = self._ticket(request_id)
        if ticket is None:
            return ()
        if ticket.stage is Stage.WAITING:
            ticket.enter(Stage.ADMITTED)
            ticket.kv_limit = max((ticket.hit, *ticket.stops))
            self._behind.append(ticket)
        return ticket.stops

    def rests_at(self, request_id: str, num_tokens: int) -> bool:
        """Return whether :meth:`note_blocks` has nothing to say. O(1), asked for each token of an answer."""
        ticket = self._tickets.get(request_id)
        if ticket is None or ticket.stage is Stage.PREEMPTED:
            return self.is_led_by_learning
        return ticket.rests_at(num_tokens, self.layout.block_tokens)

    def note_blocks(self, request_id: str, block_hashes: Sequence[bytes], num_tokens: int) -> tuple[int, ...]:
        """Do as :meth:`admit` for a request that has blocks for ``num_tokens`` tokens. Where its answer has
        just reached a block boundary, keep the state there too if that is worth it: it exists anyway, and who
        asks on resumes there.
        """
        ticket = self._ticket(request_id)
        if ticket is None:
            return ()
        boundary = num_tokens // self.layout.block_tokens * self.layout.block_tokens
        if ticket.answer_reaches(boundary):
            self._keep_answer(ticket, block_hashes, boundary)
        return self.admit(request_id)

    def kv_limit(self, request_id: str) -> int:
        """Return how many tokens of a request have KV that is to be found: what lies behind the last
        checkpoint can never be resumed from, but tells stock vLLM what is shared.
        """
        if not self.is_led_by_learning:
            return _ALL_TOKENS
        ticket = self._ticket(request_id)
        return 0 if ticket is None else ticket.kv_limit

    def kept_inside(self, request_id: str, start: int, end: int) -> list[int]:
        """Return where, in ``(start, end)``, checkpoints of a request lie inside blocks and are wanted still:
        a block that fills up forgets by what else it was found.
        """
        ticket = self._ticket(request_id)
        if ticket is None or not ticket.kept_inside:
            return []
        return [
            position
            for position in ticket.kept_inside
            if start < position < end and self._memory.wants(ticket.prompt.blocks(position))
        ]

    def note_step(self, request_id: str, num_computed_tokens: int) -> None:
        """Note how far the prefill has come; let go of a request whose last checkpoint is captured."""
        ticket = self._ticket(request_id)
        if ticket is None:
            return
        if ticket.stage is Stage.SETTLED:
            # Every group has seen the state that was promised in the answer.
            ticket.stops = ()
        if ticket.stage not in (Stage.ADMITTED, Stage.PROMISED):
            return
        ticket.num_computed = num_computed_tokens
        self.counts.stops += num_computed_tokens in ticket.stops
        if ticket.is_captured:
            self._behind.append(ticket)

    def close(self, request_id: str) -> None:
        """Forget a request that is finished or aborted."""
        self.catch_up()
        ticket = self._tickets.pop(request_id, None)
        if ticket is None:
            return
        if ticket.stage is Stage.WAITING:
            ticket.lease.release()
        else:
            self._settle(ticket)
        if self._leader.catch_up():
            # What stock vLLM keeps beside the checkpoints is memory for others.
            self._memory.doubt_everything()
            self._memory.clean()

    def catch_up(self) -> None:
        """Tell the cache what it has not been told yet."""
        self._following.catch_up()
        if not self._behind:
            return
        behind, self._behind = self._behind, []
        for ticket in behind:
            if ticket.stage is Stage.ADMITTED:
                self._commit(ticket)
            if ticket.is_captured:
                self._settle(ticket)

    def make_room(self, num_blocks: int) -> None:
        """Have so many clean blocks come next, as far as evicting checkpoints can do it; or leave it to vLLM,
        where stock's rule leads.
        """
        if self._memory.num_clean(num_blocks) >= num_blocks:
            return
        self.catch_up()
        if not self.is_led_by_learning:
            self._following.make_room(num_blocks)
            return
        while self._memory.num_clean(num_blocks) < num_blocks and self._cache.evict_least():
            self._memory.clean()

    def clear(self) -> None:
        """Forget all checkpoints, since the pool was emptied; what was learned stays. Requests that wait will
        be looked up again.
        """
        self.catch_up()
        for request_id, ticket in list(self._tickets.items()):
            if ticket.stage is Stage.WAITING:
                ticket.lease.release()
                del self._tickets[request_id]
            else:
                self._settle(ticket, is_intact=lambda _: True)
        self._cache.clear()
        self._memory.clean()

    def save(self) -> None:
        """Write what was learned to the file that the options name, if any."""
        self.catch_up()
        if self._learned is not None:
            save_lessons(self.policy, self._learned)

    def statistics(self) -> CacheStatistics:
        """Return the account of all admitted requests, up to the last :meth:`catch_up`; memory is in units of
        the layout.
        """
        account, num_untold = self._cache.statistics(), self._num_untold
        return replace(
            account, num_tokens=account.num_tokens + num_untold, unseen=account.unseen + num_untold
        )

    def check(self) -> None:
        """Recompute every invariant of the cache; raise ``CacheCorruptionError`` where one is broken."""
        self._cache.check()

    @property
    def is_led_by_learning(self) -> bool:
        """Whether the learned rule leads; else all is as in stock vLLM, but for extras in spare memory."""
        return self._leader.is_led_by_learning

    @property
    def num_open(self) -> int:
        """How many requests are on their way."""
        return len(self._tickets)

    def _cost_of_a_stop(self) -> int:
        return self.step_cost.stop_tokens if self._stop_tokens is None else self._stop_tokens

    def _commit(self, ticket: Ticket) -> None:
        lease, planned = ticket.lease, ticket.stops
        ticket.enter(Stage.PROMISED)
        if not self.is_led_by_learning:
            self._cache.resize(_NO_LIMIT)
        self._cache.commit(lease, Placement(planned), ticket.prompt)
        stored = tuple(c.position for c in lease.pinned if c.position in planned)
        if stored != planned:
            # Its first chunk went by what was planned.
            limit = max((ticket.hit, *stored))
            self._memory.doubt_kv(ticket.prompt.block_ends(limit, ticket.kv_limit))
            ticket.stops, ticket.kv_limit = stored, limit
        for checkpoint in lease.pinned:
            if checkpoint.position in planned:
                self._following.note_kept(checkpoint, is_extra=checkpoint.position not in ticket.given)
        self._memory.clean()
        self._num_untold += ticket.num_untold
        self._leader.note(lease, found=ticket.hit)
        self.counts.planned += len(planned)
        self.counts.hits += lease.resume_position > 0

    def _keep_answer(self, ticket: Ticket, block_hashes: Sequence[bytes], position: int) -> None:
        self.catch_up()
        layout = self.layout
        hashed = ticket.kv_hashed // layout.block_tokens * layout.block_tokens
        prompt = PromptBlocks(block_hashes, layout, self._memory)
        if hashed and not self._memory.holds_kv(prompt.ending(hashed)):
            # The KV of the prompt was evicted, and its blocks are not given their hashes again.
            return
        if not self._planner.may_keep_answer(leads=self.is_led_by_learning):
            return
        keys = hash_keys(block_hashes, position, layout.match_tokens)
        stored = self._cache.extend(ticket.lease, keys, prompt)
        self._memory.clean()
        if stored:
            ticket.stops, ticket.kv_limit, ticket.kv_hashed = (stored,), stored, stored
            self.counts.answers += 1
            with self._cache.acquire(keys, num_tokens=position + 1) as lease:
                if lease.checkpoint is not None:
                    self._following.note_kept(lease.checkpoint, is_extra=True)

    def _settle(self, ticket: Ticket, *, is_intact: Callable[[Any], bool] | None = None) -> None:
        """Let go of what a promised ticket holds; nothing where that was done before."""
        if ticket.stage is not Stage.PROMISED:
            return
        ticket.enter(Stage.SETTLED)
        num_lost = self._cache.confirm(ticket.lease, is_intact or self._memory.holds)
        self._memory.clean()
        self.counts.kept += max(0, len(ticket.stops) - num_lost)
        self.counts.settled += 1
        block_tokens = self.layout.block_tokens
        ticket.kept_inside = tuple(position for position in ticket.stops if position % block_tokens)
        # From here on its blocks may be evicted, and must not be given their hashes again.
        ticket.stops, ticket.kv_limit, ticket.kv_hashed = (), 0, ticket.kv_limit

    def _ticket(self, request_id: str) -> Ticket | None:
        """Return the ticket of a request that is planned for, up to date whatever vLLM has called before."""
        ticket = self._tickets.get(request_id)
        if ticket is not None and ticket.is_due:
            self.catch_up()
        return ticket

    def _forget(self, dropped: Sequence[Any]) -> None:
        payloads = [blocks for blocks in dropped if blocks is not None]
        self._following.note_dropped(payloads)
        if self.is_led_by_learning:
            self._memory.forget(payloads)
        else:
            self._memory.leave(payloads)
