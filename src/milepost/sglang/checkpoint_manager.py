"""Decides for one SGLang cache which states to keep, and keeps the account.

A request comes by six times:

    admit          it joins a batch: how far does it follow earlier prompts, what is to be kept?
    stop_in        each of its chunks is about to be: does it end earlier, for one state more?
    position_in    each of its chunks is prepared: which position is to be captured?
    catch_up       the model computes: the cache is told of the request, and learns from it
    enter_tree     a state of it is in SGLang's tree, at a node
    finish         it is gone, served or not: promises that were not kept are taken back

and whenever SGLang needs a slot for a state, ``next_victim`` says whose. SGLang's own match is the truth:
nothing is resumed from that it has not found, and each state that leaves its tree is reported by
``leave_tree`` before anything else happens, so the cache never believes in one that is gone.

All ranks of a model decide alike: no clock, no randomness, and no order but that of requests.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

from milepost.accounting import CacheStatistics
from milepost.hosted.lessons import KeptLessons
from milepost.policies import CachePolicy
from milepost.sglang.checkpoint_cache import CheckpointCache
from milepost.sglang.counts import CheckpointCounts
from milepost.sglang.options import Options
from milepost.sglang.planned_request import PlannedRequest
from milepost.sglang.prompt_keys import UnitHash
from milepost.sglang.room import StateRoom
from milepost.sglang.states import TreeState

__all__ = ["CheckpointManager"]

# SGLang ends its schedulers without notice, so what was learned is saved every so many requests.
_SETTLED_PER_SAVE = 256


@final
class CheckpointManager:
    """See the module.

    Args:
        room: The pools.
        policy: Places and evicts.
        options: The plugin's settings.
        saves_lessons: Whether what is learned is written to the file that the options name: one rank does.
    """

    def __init__(
        self,
        *,
        room: StateRoom,
        policy: CachePolicy,
        options: Options | None = None,
        saves_lessons: bool = True,
    ) -> None:
        options = options or Options()
        self.room = room
        self.counts = CheckpointCounts()
        self.policy = policy
        self._lessons = KeptLessons(policy, options.learned, saves=saves_lessons)
        self._cache = CheckpointCache(room=room, policy=policy, history_tokens=options.history_tokens)
        self.states, self.worth_of_kv = self._cache.states, self._cache.worth_of_kv
        self._stop_tokens = options.stop_tokens
        self._hash = UnitHash(room.unit_tokens)
        self._requests: dict[str, PlannedRequest] = {}

    def admit(
        self,
        request_id: str,
        tokens: Sequence[int],
        *,
        tenant: str,
        hit: int,
        chunk_end: int,
        chunk_tokens: int | None,
        may_stop: bool = False,
        breakpoints: Sequence[int] = (),
    ) -> None:
        """Plan a request that resumes at ``hit``, and promise what is to be kept of it.

        Args:
            request_id: SGLang's.
            tokens: The prompt.
            tenant: Whose it is.
            hit: Tokens that SGLang has found, and copies the state of.
            chunk_end: Where its first chunk ends.
            chunk_tokens: Most tokens of the chunks after it; None where a prompt is one chunk.
            may_stop: Whether its chunks may be cut where that pays.
            breakpoints: Positions of its messages' ends, where the client said so.
        """
        self.finish(request_id)
        room, num_tokens = self.room, len(tokens)
        if num_tokens <= room.grid_tokens:
            return
        # Depths are known in whole units, so the length is told in them too.
        num_whole = num_tokens // room.unit_tokens
        num_told = num_whole * room.unit_tokens + (num_tokens % room.unit_tokens > 0)
        keys = self._hash.keys(tokens)
        cache, hit_told = self._cache.current, min(hit, num_whole * room.unit_tokens)
        ends = room.chunk_ends(hit, num_tokens, chunk_end=chunk_end, chunk_tokens=chunk_tokens)
        # Where chunks may be cut, each step of the grid can be the end of one.
        self._note_room((num_tokens - hit) // room.grid_tokens if may_stop else len(ends))
        lease = cache.acquire(
            keys,
            num_tokens=num_told,
            tenant=tenant,
            breakpoints=[position for position in breakpoints if position <= num_told],
            resume_limit=hit_told,
        )
        lease.resume_deeper(hit_told)
        lease.compute_in_calls(ends, cut_tokens=self._stop_tokens if may_stop else None)
        planned = cache.plan(lease).positions
        num_stops = room.num_stops(planned, ends)
        # What is free for the moment, other requests will need to run; a quarter of all slots, they will not.
        num_spare, has_kv = self._num_spare(), room.free_kv_tokens() >= num_tokens - hit
        if num_spare >= (len(ends) if has_kv else max(len(ends), room.num_states // 4)):
            # No state has to go for them, and what their KV is worth is seen when KV is short.
            planned = room.with_chunk_ends(planned, hit, ends)
        request = self._requests[request_id] = PlannedRequest(
            lease, keys, num_tokens, hit, planned, may_stop=num_stops > 0
        )
        self.counts.stops += num_stops
        self._cache.tell_later(request)
        self.counts.planned += len(planned)
        self.counts.hits += hit > 0

    def catch_up(self) -> None:
        """Tell the cache of the requests that it has not been told of, while there is time for it."""
        self._cache.catch_up()

    def is_open(self, request_id: str) -> bool:
        """Return whether a request is planned for."""
        return request_id in self._requests

    def position_in(self, request_id: str, start: int, end: int) -> int | None:
        """Return which position of a chunk of ``[start, end)`` to capture; None for nothing."""
        request = self._requests.get(request_id)
        if request is None:
            return None
        position = request.position_in(start, end, self.room.grid_tokens)
        if position is None and start % self.room.grid_tokens:
            self.counts.off_grid += any(start < each <= end for each in request.awaited)
        return position

    def stop_in(self, request_id: str, start: int, end: int) -> int | None:
        """Return where a chunk of ``[start, end)`` is to end before that, so that the next one can capture
        one more state; None where it is not to be cut.
        """
        request = self._requests.get(request_id)
        return None if request is None else request.stop_in(start, end, self.room.grid_tokens)

    def keeps_answer(self, request_id: str, tokens: Sequence[int], position: int) -> bool:
        """Return whether to keep the state at ``position`` of a finished request: in its prompt it was
        captured because of a plan; in the answer it exists anyway, and is kept if it is worth that.

        Args:
            request_id: SGLang's.
            tokens: The prompt and its answer up to there.
            position: How far the state is.
        """
        request = self._requests.get(request_id)
        if request is None or position <= 0 or position % self.room.grid_tokens:
            return False
        if position <= request.num_tokens:
            return True
        self._settle(request)
        keys = self._hash.keys(tokens[:position])
        self._note_room(1)
        if not self._cache.current.extend(request.lease, keys, self._cache.source):
            return False
        self.counts.answers += 1
        with self._cache.current.acquire(keys, num_tokens=position + 1, tenant=request.lease.tenant) as lease:
            checkpoint = lease.checkpoint
            if checkpoint is not None and checkpoint.position == position:
                state = checkpoint.payload
                assert isinstance(state, TreeState)
                state.checkpoint = checkpoint
                if state.node_id is None:
                    request.states[position] = state
        return True

    def enter_tree(self, request_id: str | None, position: int, node_id: int) -> None:
        """Note that the state of a request at ``position`` is in the tree. One that nobody planned goes
        first.
        """
        self.catch_up()
        request = self._requests.get(request_id) if request_id is not None else None
        state = request.states.pop(position, None) if request is not None else None
        self.states.enter(node_id, state)
        self.counts.kept += state is not None and state.node_id is not None

    def leave_tree(self, node_id: int) -> None:
        """Note that the state at a node is gone. Harmless where that was decided here."""
        state = self.states.leave(node_id)
        if state is None:
            return
        self.counts.evicted_by_sglang += 1
        self._cache.lose(state)

    def next_victim(self, is_locked: Callable[[int], bool]) -> int | None:
        """Return the node whose state goes next; None where SGLang has to choose by itself.

        Args:
            is_locked: Whether a request holds the state at a node just now.

        Complexity: O(states that are locked or not wanted + log states).
        """
        while True:
            for node_id in self.states.unwanted:
                if not is_locked(node_id):
                    return node_id
            # What goes from the cache is not wanted any more.
            if not self._cache.told.evict_least(is_held=lambda state: self._is_held(state, is_locked)):
                return None

    def note_prefilled(self, request_id: str, num_tokens: int) -> None:
        """Note that ``num_tokens`` of a request are computed, and what was captured of those is kept."""
        request = self._requests.get(request_id)
        if request is not None and num_tokens >= request.num_tokens:
            self._settle(request)

    def finish(self, request_id: str) -> None:
        """Forget a request that is finished, aborted or retracted."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return
        self._settle(request)
        self._take_back(request)
        if self.counts.settled % _SETTLED_PER_SAVE == 0:
            self.save()

    def clear(self) -> None:
        """Forget all checkpoints, since the tree was emptied; what was learned stays."""
        self.catch_up()
        self.states.clear()
        for request_id in list(self._requests):
            self.finish(request_id)
        self._cache.current.clear()
        self.counts.resets += 1

    def save(self) -> None:
        """Write what was learned to the file that the options name, if any."""
        self._lessons.save()

    def statistics(self) -> CacheStatistics:
        """Return the account of all admitted requests; memory is in units of the pools."""
        return self._cache.current.statistics()

    def check(self) -> None:
        """Recompute every invariant of the cache; raise ``CacheCorruptionError`` where one is broken."""
        self._cache.current.check()

    @property
    def num_open(self) -> int:
        """How many requests are on their way."""
        return len(self._requests)

    @property
    def nodes_with_states(self) -> set[int]:
        """The nodes of SGLang's tree that have a state, by what was reported. O(states)."""
        return {*self.states.wanted, *self.states.unwanted}

    def _num_spare(self) -> int:
        """Return how many slots nothing has to be evicted for."""
        promised = sum(len(request.awaited) for request in self._requests.values())
        return max(0, self.room.free_states() + len(self.states.unwanted) - promised)

    def _note_room(self, most_states: int) -> None:
        """Tell the cache what it may take now: what it has, and as many more as are spare and of use."""
        cache = self._cache.current
        cache.resize(max(1, cache.stored_bytes + min(most_states, self._num_spare())))

    def _settle(self, request: PlannedRequest) -> None:
        """Take back what was promised of a prompt and not captured, and let go of the rest."""
        if request.is_settled:
            return
        request.is_settled = True
        self._cache.current.confirm(request.lease, _is_in_tree)
        request.states.clear()
        self.counts.settled += 1
        self._cache.drop_lost()

    def _take_back(self, request: PlannedRequest) -> None:
        """Drop the state of an answer that was not captured after all."""
        for state in request.states.values():
            if state.checkpoint is not None:
                self._cache.current.evict(state.checkpoint)
        request.states.clear()

    @staticmethod
    def _is_held(state: Any, is_locked: Callable[[int], bool]) -> bool:
        return isinstance(state, TreeState) and state.node_id is not None and is_locked(state.node_id)


def _is_in_tree(state: Any) -> bool:
    return isinstance(state, TreeState) and state.node_id is not None
