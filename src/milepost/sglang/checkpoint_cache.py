"""The cache of the states in SGLang's tree: told of a request once its batch was launched.

No request waits for the cache to take in what has become of it. That is done in ``catch_up``, while the
model computes; and before anything else reads or changes the cache by ``current``. Between the plan of a
request and the launch of its batch, room is made by what was known before: for that the cache is asked as it
is, ``told``.
"""

from collections.abc import Sequence
from typing import Any, final

from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.placement import Placement
from milepost.policies import CachePolicy
from milepost.sglang.planned_request import PlannedRequest, PlannedStates
from milepost.sglang.room import StateRoom
from milepost.sglang.states import TreeState, TreeStates

__all__ = ["CheckpointCache"]

# KV has a pool and an order of its own, so the cache is to keep none: a segment is longer than any prompt.
_NO_SEGMENTS = 1 << 40
# Prompt tokens remembered beyond what the KV pool holds: next to nothing, 8 bytes for 64 of them.
_HISTORY_PER_POOL = 30


@final
class CheckpointCache:
    """See the module.

    Args:
        room: The pools.
        policy: Places and evicts.
        history_tokens: Prompt tokens remembered after their KV is gone; thirty times what the pool of KV
            holds where None.
    """

    def __init__(self, *, room: StateRoom, policy: CachePolicy, history_tokens: int | None) -> None:
        #: As it is, which may be late.
        self.told = HostedCache(
            capacity_bytes=room.num_states,
            footprint=Footprint(checkpoint_bytes=1, kv_bytes_per_token=0),
            policy=policy,
            grid=room.grid_tokens,
            segment_tokens=room.grid_tokens * _NO_SEGMENTS,
            key_tokens=room.unit_tokens,
            history_tokens=_HISTORY_PER_POOL * room.num_kv_tokens
            if history_tokens is None
            else history_tokens,
            on_drop=self._on_drop,
        )
        #: Where the payloads come from.
        self.source = PlannedStates()
        #: The states in SGLang's tree.
        self.states = TreeStates()
        #: What a checkpoint is worth for each token of KV that would go with it.
        self.worth_of_kv = self.told.worth_of_kv
        # Requests that it has to be told of.
        self._late: list[PlannedRequest] = []
        # States that SGLang took while a lease held their record.
        self._lost: list[TreeState] = []

    @property
    def current(self) -> HostedCache:
        """The cache, told of all that has happened."""
        if self._late:
            self.catch_up()
        return self.told

    def tell_later(self, request: PlannedRequest) -> None:
        """Have the cache be told of a request that was planned."""
        self._late.append(request)

    def catch_up(self) -> None:
        """Tell the cache of the requests that it has not been told of, while there is time for it."""
        late, self._late = self._late, []
        for request in late:
            planned, request.planned = request.planned, ()
            self.told.commit(request.lease, Placement(planned), self.source)
            for checkpoint in request.lease.pinned:
                state = checkpoint.payload
                assert isinstance(state, TreeState)
                state.checkpoint = checkpoint
                if state.node_id is None and checkpoint.position in planned:
                    request.states[checkpoint.position] = state

    def lose(self, state: TreeState) -> None:
        """Evict what SGLang has taken; where a lease holds its record, once that is released."""
        self._lost.append(state)
        self.drop_lost()

    def drop_lost(self) -> None:
        """Evict what SGLang has taken before, as far as no lease holds it any more."""
        self._lost = [state for state in self._lost if state.is_wanted and not self._evict_lost(state)]

    def _evict_lost(self, state: TreeState) -> bool:
        assert state.checkpoint is not None
        return state.node_id is not None or self.told.evict(state.checkpoint)

    def _on_drop(self, dropped: Sequence[Any]) -> None:
        for state in dropped:
            if isinstance(state, TreeState):
                self.states.reject(state)
