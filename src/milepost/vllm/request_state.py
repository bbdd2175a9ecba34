"""One request on its way through vLLM: what stage it is in, and what it keeps.

    WAITING     planned for; it has no blocks yet
    SCHEDULED   it has blocks, and the cache is to be told of its checkpoints
    COMMITTED   the cache holds its checkpoints, as promises
    CONFIRMED   its promises are kept or taken back; the answer goes on
    PREEMPTED   it lost its blocks; nothing more is kept of it, or learned from it
    FINISHED    it is gone, served or not

Which stage may follow which is in ``TRANSITIONS``; there is no other way.
"""

from dataclasses import dataclass
from enum import Enum
from typing import final

from milepost.errors import CacheCorruptionError
from milepost.lease import Lease
from milepost.vllm.prompt_blocks import PromptBlocks

__all__ = ["TRANSITIONS", "RequestState", "Stage"]


class Stage(Enum):
    """See the module."""

    WAITING = "waiting"
    SCHEDULED = "scheduled"
    COMMITTED = "committed"
    CONFIRMED = "confirmed"
    PREEMPTED = "preempted"
    FINISHED = "finished"


# A preempted request may be planned for, and wait, more than once.
TRANSITIONS = {
    Stage.WAITING: frozenset({Stage.SCHEDULED, Stage.FINISHED}),
    Stage.SCHEDULED: frozenset({Stage.COMMITTED}),
    Stage.COMMITTED: frozenset({Stage.CONFIRMED}),
    Stage.CONFIRMED: frozenset({Stage.PREEMPTED, Stage.FINISHED}),
    Stage.PREEMPTED: frozenset({Stage.PREEMPTED, Stage.FINISHED}),
    Stage.FINISHED: frozenset[Stage](),
}


@final
@dataclass(slots=True, eq=False)
class RequestState:
    """See the module.

    Attributes:
        lease: What the cache holds for it.
        prompt: Its block hashes.
        hit: Tokens that it resumed from.
        stops: Where its prefill ends a chunk and keeps the state, ascending; once it is confirmed, where the
            answer's state is kept.
        given: Those of the stops that stock vLLM makes too.
        shared: Up to where vLLM saw it shared, where that is deeper than the hit was; else 0.
        num_untold: Tokens at the end of the prompt that the cache does not know of.
        num_loaded: Tokens of the hit that a KV connector has brought.
        adopted: Where the state that it brought is kept in the pool, 0 where it is not.
        kv_limit: How far its KV is worth a hash.
        kv_hashed: How far it was, when the prompt was done.
        num_computed: How far its prefill has come, None before the first step.
        boundary: The deepest block boundary that it was seen at.
        stage: See the module.
    """

    lease: Lease
    prompt: PromptBlocks
    hit: int
    stops: tuple[int, ...]
    given: tuple[int, ...] = ()
    shared: int = 0
    num_untold: int = 0
    num_loaded: int = 0
    adopted: int = 0
    kv_limit: int = 0
    kv_hashed: int = 0
    num_computed: int | None = None
    boundary: int = 0
    stage: Stage = Stage.WAITING

    def enter(self, stage: Stage) -> None:
        """Go on to ``stage``.

        Raises:
            CacheCorruptionError: it cannot follow the one that the request is in.
        """
        if stage not in TRANSITIONS[self.stage]:
            raise CacheCorruptionError(
                f"a request that is {self.stage.value} cannot become {stage.value}, only one of "
                f"{sorted(each.value for each in TRANSITIONS[self.stage])}; please report it"
            )
        self.stage = stage

    @property
    def kept_positions(self) -> tuple[int, ...]:
        """Where the pool is to keep a state of it, ascending."""
        return (self.adopted, *self.stops) if self.adopted else self.stops

    @property
    def is_captured(self) -> bool:
        """Whether its prefill is past its last stop."""
        return self.num_computed is not None and self.num_computed >= (self.stops[-1] if self.stops else 0)

    @property
    def is_due(self) -> bool:
        """Whether the cache has to be told of it before anything is asked about it."""
        return self.stage in (Stage.SCHEDULED, Stage.COMMITTED) and self.is_captured

    def rests_at(self, num_tokens: int, block_tokens: int) -> bool:
        """Return whether nothing of it can be worth a hash at ``num_tokens`` tokens that was not before: so
        it is for most tokens of an answer.
        """
        if self.stage is Stage.CONFIRMED:
            return not self.stops and num_tokens < self.boundary + block_tokens
        return self.stage is Stage.PREEMPTED

    @property
    def num_prompt_tokens(self) -> int:
        """Length of its prompt."""
        return self.lease.request.num_tokens + self.num_untold

    def answer_reaches(self, boundary: int) -> bool:
        """Note that it was seen at a block boundary; return whether its answer has just come there. The state
        is there only then: vLLM reports a boundary again with each token after it, and a prompt passes
        most of its boundaries without a stop.
        """
        is_first = boundary > self.boundary
        self.boundary = max(boundary, self.boundary)
        return is_first and self.stage is Stage.CONFIRMED and boundary > self.num_prompt_tokens
