"""The cache of the paper's runs: the last N sequences, each with checkpoints of its own.

A request resumes from the deepest checkpoint of one entry, the one of its document that it follows
furthest; of several, the oldest. Its own entry is planned as a whole and holds all of its checkpoints, also
those that another entry holds already: entries share nothing. KV is free, and any entry costs one place,
however long it is.

Placement policies are ours, unchanged; only the cache around them is the paper's.
"""

from collections import deque
from dataclasses import dataclass

from benchmarks.paper.rebuild import RebuiltLog, RebuiltRequest
from milepost.placement import Placement, PlacementPolicy, PlacementRequest
from milepost.tokens import common_prefix_length

__all__ = ["GRID", "FifoResult", "replay_fifo"]

GRID = 64


@dataclass(frozen=True, slots=True)
class FifoResult:
    """What a policy did on the logged requests; the warm-up is not counted."""

    saved_fraction: float
    checkpoints_per_entry: float


@dataclass(frozen=True, slots=True)
class _Entry:
    request: RebuiltRequest
    checkpoint_positions: tuple[int, ...]


def replay_fifo(
    log: RebuiltLog,
    policy: PlacementPolicy,
    *,
    num_cached: int,
    warmup_policy: PlacementPolicy | None = None,
) -> FifoResult:
    """Replay ``log`` through a FIFO of ``num_cached`` sequences.

    Args:
        log: The requests.
        policy: Places the checkpoints, and learns; it may have learned before.
        num_cached: Sequences held.
        warmup_policy: Placed the checkpoints of the warm-up's entries; ``policy`` unless given.

    Complexity: O(requests * entries of a document * tokens).
    """
    entries: deque[_Entry] = deque(maxlen=num_cached)
    for request in log.warmup:
        placed = _place(warmup_policy or policy, request, 0)
        entries.append(_Entry(request, placed.positions))
    num_saved = num_checkpoints = 0
    for request in log.requests:
        overlap_depth, best = 0, None
        for entry in entries:
            if entry.request.document == request.document:
                depth = common_prefix_length(entry.request.tokens, request.tokens)
                if depth > overlap_depth:
                    overlap_depth, best = depth, entry
        if best is not None:
            num_saved += max((p for p in best.checkpoint_positions if p <= overlap_depth), default=0)
        # As in the paper's runs, a request's own overlap is known when its entry is planned.
        policy.observe(_placement_request(request, overlap_depth))
        placed = _place(policy, request, overlap_depth)
        num_checkpoints += len(placed.positions)
        entries.append(_Entry(request, placed.positions))
    return FifoResult(num_saved / log.num_tokens, num_checkpoints / len(log.requests))


def _place(policy: PlacementPolicy, request: RebuiltRequest, overlap_depth: int) -> Placement:
    return policy.place(_placement_request(request, overlap_depth))


def _placement_request(request: RebuiltRequest, overlap_depth: int) -> PlacementRequest:
    """Describe a prompt that is planned as a whole, whatever it resumes from."""
    return PlacementRequest(num_tokens=request.tokens.size, overlap_depth=overlap_depth, grid=GRID)
