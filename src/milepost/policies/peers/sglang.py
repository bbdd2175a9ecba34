"""What SGLang does for hybrid models (``MambaRadixCache``, 2026).

Placement
    A state at the request's end, and one at the branch point, where the match of the KV goes further than
    that of the state. With ``chunk``, also at the end of each chunk of a long prefill. A chunk leaves one
    state only (``single``): the branch point takes the place of the end of the chunk that it lies in.
KV
    Ends at the last state of each path: a leaf without a state is deleted.
Eviction
    Two pools, one for states and one for KV, in a fixed ratio (``mamba_full_memory_ratio`` = 0.9 states to 1
    KV). Short of states: the least recently used state goes, and its KV if nothing lies below it. Short of
    KV: the least recently used leaf goes, with its state and with all KV up to the next state or branch. A
    request refreshes every state on its path, the deepest last.

Not modelled: the grid of 64 tokens, which is the cache's own here; states every 256 decoded tokens; the host
and storage tiers; states and KV held by requests that run at the same time.
"""

from dataclasses import dataclass
from typing import final

import numpy as np

from milepost.errors import ConfigurationError
from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.placement.admissible import admissible, deepest_reusable
from milepost.policies.base import CachePolicy
from milepost.policies.peers.matched import TailAndMatchedJunction, matched_junction
from milepost.store import KV_CELL, STATE_CELL, Checkpoint, EvictionPolicy, InsertResult, Reranking
from milepost.store.eviction_policy import FloatArray

__all__ = ["SGLANG_STATE_SHARE", "ChunkEnds", "PathRecency", "sglang"]

#: States take 0.9 bytes for each byte of KV.
SGLANG_STATE_SHARE = 0.9 / 1.9
_TWO_CELLS = np.ones(2)
_TWO_CELLS.flags.writeable = False
# Positions below this many tokens order what one request used, without reaching into the next request.
_TICK = float(1 << 31)


@final
@dataclass(frozen=True, slots=True)
class ChunkEnds(PlacementPolicy):
    """Tail and junction, and the end of each chunk of ``chunk_tokens`` that the prefill is cut into; or the
    junction instead of the end of its chunk.
    """

    chunk_tokens: int
    is_single: bool = False

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise ConfigurationError(f"chunk={self.chunk_tokens}; give at least 1 of tokens")

    def place(self, request: PlacementRequest) -> Placement:
        """Return tail, junction and chunk ends. O(num_tokens / chunk_tokens)."""
        positions = TailAndMatchedJunction().place(request).positions
        first = request.resume_position + self.chunk_tokens
        ends = (*range(first, request.num_tokens, self.chunk_tokens), deepest_reusable(request))
        junction = matched_junction(request)
        if self.is_single and junction is not None:
            taken = next((end for end in ends if end >= junction), None)
            return admissible(request, (*(end for end in ends if end != taken), junction))
        return admissible(request, (*positions, *ends))


@final
class PathRecency(EvictionPolicy):
    """Least recently used, where a request uses every state on its path, the deepest last.

    States with nothing below them, which free KV, rank in a cell of their own. O(1), and O(states on the
    path) for each request.
    """

    weighs_neighbours = True

    def __init__(self) -> None:
        self._tick = 0

    @property
    def scales(self) -> FloatArray:
        """Both cells count alike."""
        return _TWO_CELLS

    def rank(self, checkpoint: Checkpoint, freed_bytes: int) -> tuple[int, float]:
        """Return the cell, and the tick of the last use; of one tick, the shallowest first."""
        cell = STATE_CELL if checkpoint.below else KV_CELL
        return cell, checkpoint.last_used * _TICK + checkpoint.position

    def note_request(self, inserted: InsertResult) -> Reranking:
        """Refresh the states that the request has passed."""
        self._tick += 1
        end = inserted.prompt.num_tokens
        passed = [c for node in inserted.path for c in node.checkpoints if c.position <= end]
        for checkpoint in passed:
            checkpoint.last_used = self._tick
        return Reranking(passed)


def sglang(
    *, share: float = SGLANG_STATE_SHARE, chunk: int | None = None, single: bool = False
) -> CachePolicy:
    """Return a new policy.

    Args:
        share: Share of the budget that is the states' own.
        chunk: Length of a prefill chunk that leaves a state at its end; none unless given.
        single: Whether a chunk leaves one state only, at the branch point where there is one.

    Raises:
        ConfigurationError: an option is out of its range, or ``single`` without a chunk.
    """
    if single and chunk is None:
        raise ConfigurationError("single=yes is about the states of a chunk; give chunk=8192 as well")
    placement = TailAndMatchedJunction() if chunk is None else ChunkEnds(chunk, single)
    return CachePolicy(placement, PathRecency(), state_share=share)
