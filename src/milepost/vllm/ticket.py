"""One request on its way through vLLM: what stage it is in, what it keeps, and its block hashes.

    WAITING     looked up; it has no blocks yet
    ADMITTED    it has blocks, and its checkpoints are to be promised
    PROMISED    the cache holds its checkpoints, as promises
    SETTLED     its promises are kept or taken back; the answer goes on
    PREEMPTED   it lost its blocks; nothing more is kept of it, or learned from it

A stage is entered once, in this order; ``_NEXT`` is all there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import final

import numpy as np

from milepost.lease import Lease
from milepost.tokens import KeyArray
from milepost.vllm.layout import PoolLayout
from milepost.vllm.pool import BlockMemory, PrefixBlocks

__all__ = ["PromptBlocks", "Stage", "Ticket", "hash_keys"]

_KEY_BYTES = 8


class Stage(Enum):
    """See the module."""

    WAITING = "waiting"
    ADMITTED = "admitted"
    PROMISED = "promised"
    SETTLED = "settled"
    PREEMPTED = "preempted"


_NEXT = {
    Stage.WAITING: Stage.ADMITTED,
    Stage.ADMITTED: Stage.PROMISED,
    Stage.PROMISED: Stage.SETTLED,
    Stage.SETTLED: Stage.PREEMPTED,
}


@final
@dataclass(slots=True, eq=False)
class Ticket:
    """See the module.

    Attributes:
        lease: What the cache holds for it.
        prompt: Its block hashes.
        hit: Tokens that it resumed from.
        stops: Where its prefill ends a chunk and keeps the state, ascending; once it is settled, where the
            answer's state is kept.
        given: Those of the stops that stock vLLM makes too.
        num_untold: Tokens at the end of the prompt that the cache does not know of.
        kv_limit: How far its KV is worth a hash.
        kv_hashed: How far it was, when the prompt was done.
        num_computed: How far its prefill has come, None before the first step.
        kept_inside: Where states inside blocks were kept of its prompt.
        boundary: The deepest block boundary that it was seen at.
        stage: See the module.
    """

    lease: Lease
    prompt: "PromptBlocks"
    hit: int
    stops: tuple[int, ...]
    given: tuple[int, ...] = ()
    num_untold: int = 0
    kv_limit: int = 0
    kv_hashed: int = 0
    num_computed: int | None = None
    kept_inside: tuple[int, ...] = ()
    boundary: int = 0
    stage: Stage = Stage.WAITING

    def enter(self, stage: Stage) -> None:
        """Go on to the next stage."""
        assert _NEXT.get(self.stage) is stage, f"{stage} cannot follow {self.stage}"
        self.stage = stage

    @property
    def is_captured(self) -> bool:
        """Whether its prefill is past its last stop."""
        return self.num_computed is not None and self.num_computed >= (self.stops[-1] if self.stops else 0)

    @property
    def is_due(self) -> bool:
        """Whether the cache has to be told of it before anything is asked about it."""
        return self.stage in (Stage.ADMITTED, Stage.PROMISED) and self.is_captured

    def rests_at(self, num_tokens: int, block_tokens: int) -> bool:
        """Return whether nothing of it can be worth a hash at ``num_tokens`` tokens that was not before: so
        it is for most tokens of an answer.
        """
        if self.stage is Stage.SETTLED:
            return not self.stops and num_tokens < self.boundary + block_tokens
        return self.stage is Stage.PREEMPTED

    @property
    def num_prompt_tokens(self) -> int:
        """Length of its prompt."""
        return self.lease.request.num_tokens + self.num_untold

    def answer_reaches(self, boundary: int) -> bool:
        """Note that it was seen at a block boundary; return whether its answer has just come there. The state
        is there only then: vLLM reports a boundary again with each token behind it, and a prompt passes
        most of its boundaries without a stop.
        """
        is_first = boundary > self.boundary
        self.boundary = max(boundary, self.boundary)
        return is_first and self.stage is Stage.SETTLED and boundary > self.num_prompt_tokens


@final
@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """Block hashes of a prompt; also where the payloads of its checkpoints come from."""

    hashes: Sequence[bytes]
    layout: PoolLayout
    memory: BlockMemory

    def checkpoint(self, position: int) -> PrefixBlocks:
        """Return the blocks of a checkpoint, which the pool is to keep from now on."""
        blocks = self.blocks(position)
        self.memory.retain(blocks)
        return blocks

    def blocks(self, position: int) -> PrefixBlocks:
        """Return the blocks of a checkpoint."""
        layout = self.layout
        inside = position % layout.block_tokens != 0
        groups = layout.state_groups + (layout.kv_groups if inside else ())
        return PrefixBlocks(self.ending(position), groups, len(groups) * layout.block_tokens)

    def kv_segments(self, start: int, end: int) -> Sequence[bytes]:
        """Return what stands for the KV blocks in ``(start, end]``, which the pool is to keep."""
        prefix_hashes = self.block_ends(start, end)
        self.memory.retain_kv(prefix_hashes)
        return prefix_hashes

    def ending(self, position: int) -> bytes:
        """Return the hash of the prefix that ends there."""
        return self.hashes[position // self.layout.match_tokens - 1]

    def block_ends(self, start: int, end: int) -> Sequence[bytes]:
        """Return the hashes of the prefixes that end at a block boundary in ``(start, end]``."""
        block_tokens, match_tokens = self.layout.block_tokens, self.layout.match_tokens
        first = start // block_tokens * block_tokens + block_tokens
        return self.hashes[first // match_tokens - 1 : end // match_tokens : block_tokens // match_tokens]


def hash_keys(block_hashes: Sequence[bytes], num_tokens: int, match_tokens: int) -> KeyArray:
    """Return the first eight bytes of each hash, shape ``[num_tokens // match_tokens]``. They tell prompts
    apart well enough to plan by; what is resumed from, vLLM decides by whole hashes.
    """
    num_whole = num_tokens // match_tokens
    stride = len(block_hashes[0]) // _KEY_BYTES
    return np.frombuffer(b"".join(block_hashes[:num_whole]), np.int64)[::stride]
