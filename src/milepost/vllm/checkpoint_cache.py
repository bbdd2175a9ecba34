"""The cache of a pool's checkpoints: told late, and up to date whenever it is asked.

No request waits for the cache to take in what has become of it. That is done in ``catch_up``, while the model
computes; and before anything reads or changes the cache, since the only way to it is ``current``. So it
decides as if it were told at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, final

from milepost.accounting import CacheStatistics
from milepost.hosted.lessons import KeptLessons
from milepost.hosted_cache import HostedCache
from milepost.placement import Placement
from milepost.policies import CachePolicy
from milepost.policies.reuse_model import ReuseModel
from milepost.vllm.counts import CheckpointCounts
from milepost.vllm.following import Following
from milepost.vllm.layout import PoolLayout
from milepost.vllm.leading import Leader
from milepost.vllm.loading import acquire_loaded
from milepost.vllm.options import Options
from milepost.vllm.pool import BlockMemory
from milepost.vllm.request_state import RequestState, Stage

__all__ = ["CheckpointCache"]

# Stock vLLM asks nobody for room.
_NO_LIMIT = 1 << 60

# A remembered token takes 8 bytes for every block hash: next to nothing.
_HISTORY_PER_POOL = 30


@final
class CheckpointCache:
    """See the module.

    Args:
        layout: How caches lie in the pool.
        memory: The pool.
        policy: Places and evicts.
        options: The plugin's settings.
        counts: What becomes of the checkpoints is counted there.
        stop_tokens: What a stop costs now, in tokens computed.
    """

    def __init__(
        self,
        *,
        layout: PoolLayout,
        memory: BlockMemory,
        policy: CachePolicy,
        options: Options,
        counts: CheckpointCounts,
        stop_tokens: Callable[[], int],
    ) -> None:
        self.policy = policy
        self._layout = layout
        self._memory = memory
        self._counts = counts
        self._lessons = KeptLessons(policy, options.learned)
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
        # As it is, which may be late; see `current`.
        self._told = new_cache(capacity_bytes=layout.capacity, policy=policy, on_drop=self._forget)
        # Requests that it has to be told of.
        self._late: list[RequestState] = []
        #: Where the checkpoints lie while vLLM keeps and evicts by itself.
        self.following = Following(self._told, memory)
        #: Which rule leads.
        self.leader = Leader(
            layout,
            policy=policy,
            learned_from=self._lessons.loaded_from,
            make_cache=lambda capacity, rule: new_cache(capacity_bytes=capacity, policy=rule),
            stop_tokens=stop_tokens,
        )
        # Tokens after the last whole hash of each prompt: to be computed, whatever was seen.
        self._num_untold = 0

    @property
    def current(self) -> HostedCache:
        """The cache, told of all that has happened."""
        self.catch_up()
        return self._told

    @property
    def is_led_by_learning(self) -> bool:
        """Whether the learned rule leads; else all is as in stock vLLM, but for extras in spare memory."""
        return self.leader.is_led_by_learning

    @property
    def price(self) -> float:
        """What a unit of memory was worth that was evicted lately, in tokens saved by each request; 0 where
        the policy does not learn it. As the policy sees it, whichever rule evicts.
        """
        if not self.is_led_by_learning:
            return self.following.price
        lessons = self.policy.lessons
        return lessons.price if isinstance(lessons, ReuseModel) else 0.0

    def tell_later(self, request: RequestState) -> None:
        """Have the cache be told of a request that has its blocks, or whose last checkpoint is captured."""
        self._late.append(request)

    def catch_up(self) -> None:
        """Tell the cache what it has not been told yet."""
        self.following.catch_up()
        late, self._late = self._late, []
        for request in late:
            if request.stage is Stage.SCHEDULED:
                self._commit(request)
            if request.is_captured:
                self._confirm(request, self._memory.holds)

    def let_go(self, request: RequestState, *, is_intact: Callable[[Any], bool] | None = None) -> None:
        """Release what a request holds, and take back those of its promises whose state is not there, or not
        intact; nothing where that was done before.
        """
        self.catch_up()
        if request.stage is not Stage.WAITING:
            self._confirm(request, is_intact or self._memory.holds)
        elif request.adopted:
            with self._memory.deferred():
                self._told.confirm(request.lease, is_intact or self._memory.holds)
        else:
            request.lease.release()

    def take_in_loaded(self, request: RequestState, position: int, *, is_kept: bool) -> None:
        """Have a waiting request resume at ``position``, where a connector has brought it, and keep that
        state where ``is_kept``.
        """
        lease = None
        if is_kept:
            lease = acquire_loaded(
                self.current,
                request.lease,
                request.prompt,
                position,
                layout=self._layout,
                memory=self._memory,
            )
        if lease is None:
            request.lease.resume_deeper(position)
        else:
            request.lease, request.adopted = lease, position

    def make_room(self, num_blocks: int) -> None:
        """Have ``num_blocks`` clean blocks come next, as far as evicting checkpoints makes them; or leave it
        to vLLM, where stock's rule leads.
        """
        if self._memory.num_clean(num_blocks) >= num_blocks:
            return
        cache = self.current
        if not self.is_led_by_learning:
            self.following.make_room(num_blocks)
            return
        while self._memory.num_clean(num_blocks) < num_blocks:
            with self._memory.deferred():
                if not cache.evict_least():
                    return

    def compare_later(self) -> None:
        """Have the next :meth:`compare_rules` see which rule does better by now: the answers that come to
        their ends in this step are not held for it.
        """
        self.leader.end_round()

    def compare_rules(self) -> None:
        """See which rule does better by now, and give up what the one that leads from now on does not keep.
        What was compared before costs nothing.
        """
        if self.leader.catch_up():
            # What stock vLLM keeps beside the checkpoints is memory for others.
            with self._memory.deferred():
                self._memory.doubt_everything()

    def clear(self) -> None:
        """Forget all checkpoints; what was learned stays."""
        cache = self.current
        with self._memory.deferred():
            cache.clear()

    def save(self) -> None:
        """Write what was learned to the file that the options name, if any."""
        self.catch_up()
        self._lessons.save()

    def statistics(self) -> CacheStatistics:
        """Return the account, up to the last :meth:`catch_up`; memory is in units of the layout."""
        account, num_untold = self._told.statistics(), self._num_untold
        return replace(
            account, num_tokens=account.num_tokens + num_untold, unseen=account.unseen + num_untold
        )

    def check(self) -> None:
        """Recompute every invariant of the cache; raise ``CacheCorruptionError`` where one is broken."""
        self._told.check()

    def _commit(self, request: RequestState) -> None:
        lease, planned = request.lease, request.stops
        request.enter(Stage.COMMITTED)
        with self._memory.deferred():
            if not self.leader.is_led_by_learning:
                self._told.resize(_NO_LIMIT)
            self._told.commit(lease, Placement(planned), request.prompt)
            # A lease pins first what was there already, so its order is none.
            pinned = {checkpoint.position for checkpoint in lease.pinned}
            stored = tuple(position for position in planned if position in pinned)
            if stored != planned:
                # Its first chunk went by what was planned.
                limit = max((request.hit, *stored))
                self._memory.doubt_kv(request.prompt.block_ends(limit, request.kv_limit))
                for blocks in map(request.prompt.blocks, set(planned).difference(stored)):
                    self._memory.doubt_state(blocks)
                    self._memory.doubt_kv((blocks.prefix_hash,))
                request.stops, request.kv_limit = stored, limit
            for checkpoint in lease.pinned:
                if checkpoint.position in request.kept_positions:
                    self.following.note_kept(checkpoint, is_extra=checkpoint.position not in request.given)
        self._num_untold += request.num_untold
        self.leader.note(lease, found=request.hit)
        self._counts.planned += len(planned)
        self._counts.hits += lease.resume_position > 0
        self._counts.loaded += request.num_loaded

    def _confirm(self, request: RequestState, is_intact: Callable[[Any], bool]) -> None:
        if request.stage is not Stage.COMMITTED:
            return
        request.enter(Stage.CONFIRMED)
        with self._memory.deferred():
            num_lost = self._told.confirm(request.lease, is_intact)
        adopted = request.lease.checkpoint if request.adopted else None
        if adopted is not None and not adopted.is_stored:
            # No prefill was to stop for it.
            num_lost -= 1
        self._counts.kept += max(0, len(request.stops) - num_lost)
        self._counts.confirmed += 1
        # From here on its blocks may be evicted, and must not be given their hashes again.
        request.stops, request.adopted = (), 0
        request.kv_limit, request.kv_hashed = 0, request.kv_limit

    def _forget(self, dropped: Sequence[Any]) -> None:
        payloads = [blocks for blocks in dropped if blocks is not None]
        self.following.note_dropped(payloads)
        if self.leader.is_led_by_learning:
            self._memory.forget(payloads)
        else:
            self._memory.leave(payloads)
