"""Decides for one vLLM scheduler what to keep, and keeps the account.

A request comes by five times, six with a connector:

    plan_request   it is about to be admitted: how far does it follow earlier prompts, where are its stops?
    note_loaded    a KV connector brings more of it: it is planned anew from there
    commit         it has its blocks: its checkpoints are committed, as promises
    next_stop      where does its next prefill chunk have to end?
    on_step        its last promise is kept: whatever vLLM holds of them can be evicted from now on
    finish         it is gone, served or not: promises that were not kept are taken back

vLLM's lookup is the truth: where it finds less than the cache believes to be there, the belief goes.
"""

from collections.abc import Callable, Sequence
from typing import final

from milepost.accounting import CacheStatistics
from milepost.policies import CachePolicy
from milepost.vllm.answers import AnswerKeeper
from milepost.vllm.checkpoint_cache import CheckpointCache
from milepost.vllm.counts import CheckpointCounts
from milepost.vllm.layout import PoolLayout
from milepost.vllm.options import Options
from milepost.vllm.pool import BlockMemory
from milepost.vllm.prompt_blocks import num_hashed
from milepost.vllm.request_planner import RequestPlanner
from milepost.vllm.request_state import RequestState, Stage
from milepost.vllm.served_prompts import ServedPrompts
from milepost.vllm.step_cost import StepCost
from milepost.vllm.stops import StopPlanner

__all__ = ["CheckpointCounts", "CheckpointManager"]

# Stock vLLM gives all KV a hash.
_ALL_TOKENS = 1 << 60


@final
class CheckpointManager:
    """See the module.

    Args:
        layout: How caches lie in the pool.
        memory: The pool.
        policy: Places and evicts.
        options: The plugin's settings.
        has_state: Whether the state of a request, by its id, at a block boundary can still be kept.
    """

    def __init__(
        self,
        *,
        layout: PoolLayout,
        memory: BlockMemory,
        policy: CachePolicy,
        options: Options | None = None,
        has_state: Callable[[str, int], bool] = lambda _request_id, _position: True,
    ) -> None:
        options = options or Options()
        self.layout = layout
        self.counts = CheckpointCounts()
        #: What a stop costs; told of the steps by the scheduler.
        self.step_cost = StepCost()
        self._stop_tokens = options.stop_tokens
        self._memory = memory
        self._cache = CheckpointCache(
            layout=layout,
            memory=memory,
            policy=policy,
            options=options,
            counts=self.counts,
            stop_tokens=self._cost_of_a_stop,
        )
        stops = StopPlanner(
            self._cache,
            memory=memory,
            layout=layout,
            max_stops=options.max_stops,
            stop_tokens=self._cost_of_a_stop,
        )
        self._planner = RequestPlanner(
            self._cache, memory=memory, layout=layout, stops=stops, counts=self.counts
        )
        self._answers = AnswerKeeper(
            self._cache, memory=memory, layout=layout, stops=stops, counts=self.counts, has_state=has_state
        )
        #: Where tiers are told of the requests that are done.
        self.tiers_told: Sequence[ServedPrompts] = ()
        self._requests: dict[str, RequestState] = {}

    def plan_request(
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
        """Plan a request that vLLM found ``hit`` tokens of; the arguments are those of
        :meth:`RequestPlanner.plan`. Called anew for as long as it waits, and when it was preempted.
        """
        earlier = self._requests.get(request_id)
        if earlier is not None:
            self._cache.let_go(earlier)
            if earlier.stage is not Stage.WAITING:
                # What it was to keep is kept or lost.
                earlier.enter(Stage.PREEMPTED)
                earlier.stops, earlier.kv_limit = (), hit
                return
            self._requests.pop(request_id).enter(Stage.FINISHED)
        request = self._planner.plan(
            block_hashes, num_tokens, hit=hit, shared=shared, may_hit=may_hit, breakpoints=breakpoints
        )
        if request is not None:
            self._requests[request_id] = request

    def note_loaded(self, request_id: str, position: int, *, is_kept: bool) -> None:
        """Plan a request anew that resumes at ``position``, deeper than vLLM's own blocks allow: a KV
        connector has brought the rest, or does so before the next step.

        Args:
            request_id: vLLM's.
            position: Tokens that it will resume from.
            is_kept: Whether the state there will be in a block of its own, which the pool can keep.
        """
        request = self._requests.get(request_id)
        if request is not None and request.stage is Stage.WAITING and position > request.hit:
            self._planner.plan_loaded(request, position, is_kept=is_kept)

    def loaded_position(self, request_id: str) -> int:
        """Return where the state that a connector brought is to be kept, 0 where it is not."""
        request = self._request(request_id)
        return 0 if request is None else request.adopted

    def next_stop(self, request_id: str, start: int, end: int) -> int:
        """Return where a chunk of ``[start, end)`` has to end."""
        request = self._request(request_id)
        if request is None or request.stage in (Stage.CONFIRMED, Stage.PREEMPTED):
            return end
        for position in request.stops:
            if start < position < end:
                return position
        return end

    def commit(self, request_id: str) -> tuple[int, ...]:
        """Promise the checkpoints of a request that has its blocks, once; return those to keep, ascending."""
        request = self._request(request_id)
        if request is None:
            return ()
        if request.stage is Stage.WAITING:
            request.enter(Stage.SCHEDULED)
            request.kv_limit = max((request.hit, *request.stops))
            self._cache.tell_later(request)
        return request.kept_positions

    def rests_at(self, request_id: str, num_tokens: int) -> bool:
        """Return whether :meth:`on_blocks` has nothing to say. O(1), asked for each token of an answer."""
        request = self._requests.get(request_id)
        if request is None or request.stage is Stage.PREEMPTED:
            return self.is_led_by_learning
        return request.rests_at(num_tokens, self.layout.block_tokens)

    def on_blocks(self, request_id: str, block_hashes: Sequence[bytes], num_tokens: int) -> tuple[int, ...]:
        """Do as :meth:`commit` for a request that has blocks for ``num_tokens`` tokens. Where its answer
        has just reached a block boundary, keep the state there too if that is worth it: it exists anyway, and
        who asks on resumes there.
        """
        request = self._request(request_id)
        if request is None:
            return ()
        num_tokens = num_hashed(num_tokens, block_hashes, self.layout.match_tokens)
        self._answers.keep(request_id, request, block_hashes, num_tokens)
        return self.commit(request_id)

    def kv_limit(self, request_id: str) -> int:
        """Return how many tokens of a request have KV that is to be found: what lies after the last
        checkpoint can never be resumed from, but tells stock vLLM what is shared.
        """
        if not self.is_led_by_learning:
            return _ALL_TOKENS
        request = self._request(request_id)
        return 0 if request is None else request.kv_limit

    def wants(self, request_id: str, position: int) -> bool:
        """Return whether a checkpoint of a request is to be found at ``position``, and so its KV too."""
        request = self._requests.get(request_id)
        if request is None:
            return False
        return position in request.kept_positions or self._memory.wants(request.prompt.blocks(position))

    def on_step(self, request_id: str, num_computed_tokens: int) -> None:
        """Note how far the prefill has come; let go of a request whose last checkpoint is captured."""
        request = self._request(request_id)
        if request is None:
            return
        if request.stage is Stage.CONFIRMED:
            # Every group has seen the state that was promised in the answer.
            request.stops = ()
        if request.stage not in (Stage.SCHEDULED, Stage.COMMITTED):
            return
        request.num_computed = num_computed_tokens
        # At its end a prompt would have stopped anyway.
        is_stop = num_computed_tokens < request.num_prompt_tokens and num_computed_tokens in request.stops
        self.counts.stops += is_stop
        if request.is_captured:
            self._cache.tell_later(request)

    def finish(self, request_id: str) -> None:
        """Forget a request that is finished or aborted."""
        self.catch_up()
        request = self._requests.pop(request_id, None)
        if request is None:
            return
        self._cache.let_go(request)
        request.enter(Stage.FINISHED)
        for served in self.tiers_told:
            served.note(request_id, request)
        self._cache.compare_later()

    def catch_up(self) -> None:
        """Tell the cache what has happened, while there is time for it."""
        self._cache.catch_up()

    def prepare_lookup(self) -> None:
        """Do what has to be done before vLLM looks a request up and it is planned: tell the cache what has
        happened, and see which rule leads. What has to go for that goes before vLLM finds it.
        """
        self._cache.compare_rules()
        self._cache.catch_up()

    def use_free_time(self, num_blocks: int) -> None:
        """Do what no request should wait for, while the model computes: as for a lookup, see what a stop
        costs, and have ``num_blocks`` clean blocks come next.
        """
        self.prepare_lookup()
        self.step_cost.settle()
        self._cache.make_room(num_blocks)

    def make_room(self, num_blocks: int) -> None:
        """Have ``num_blocks`` clean blocks come next, as far as evicting checkpoints makes them; or leave it
        to vLLM, where stock's rule leads.
        """
        self._cache.make_room(num_blocks)

    def clear(self) -> None:
        """Forget all checkpoints, since the pool was emptied; what was learned stays. Requests that wait will
        be planned again.
        """
        for request_id, request in list(self._requests.items()):
            self._cache.let_go(request, is_intact=lambda _: True)
            if request.stage is Stage.WAITING:
                self._requests.pop(request_id).enter(Stage.FINISHED)
        self._cache.clear()
        self.counts.resets += 1

    def save(self) -> None:
        """Write what was learned to the file that the options name, if any."""
        self._cache.save()

    def statistics(self) -> CacheStatistics:
        """Return the account of all admitted requests, up to the last :meth:`catch_up`; memory is in units of
        the layout.
        """
        return self._cache.statistics()

    def check(self) -> None:
        """Recompute every invariant of the cache; raise ``CacheCorruptionError`` where one is broken."""
        self._cache.check()

    @property
    def is_led_by_learning(self) -> bool:
        """Whether the learned rule leads; else all is as in stock vLLM, but for extras in spare memory."""
        return self._cache.is_led_by_learning

    @property
    def evicted_block_worth(self) -> float:
        """What a block was worth that was evicted lately: prompt tokens that it would have saved each later
        request. A router that has to choose where a new prompt displaces least finds it on ``/metrics``.
        """
        return self._cache.price * self.layout.block_tokens

    @property
    def num_open(self) -> int:
        """How many requests are on their way."""
        return len(self._requests)

    def _cost_of_a_stop(self) -> int:
        return self.step_cost.stop_tokens if self._stop_tokens is None else self._stop_tokens

    def _request(self, request_id: str) -> RequestState | None:
        """Return a request that is planned for, up to date whatever vLLM has called before."""
        request = self._requests.get(request_id)
        if request is not None and request.is_due:
            self._cache.catch_up()
        return request
