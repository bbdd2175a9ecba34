"""A policy of one's own: where checkpoints go, in one class, compared with others on the same traffic.

    python examples/own_policy.py [LOG]

LOG is a file of requests (docs/logs.md says what is read). Without one, traffic about documents is made up:
many questions about each, at the end of the prompt. The policy below learns how far before their ends such
prompts diverge, and keeps one state there. You will see what share of all prompt tokens each reuses

    tail                 49.0%
    BeforeTheQuestion    63.1%
    learned              76.9%
"""

import sys
from collections import deque

from milepost import (
    CachePolicy,
    ContentlessPayloads,
    Footprint,
    Placement,
    PlacementPolicy,
    PlacementRequest,
    PrefixCache,
    open_trace,
)

GRID = 64
FOOTPRINT = Footprint(checkpoint_bytes=25_000_000, kv_bytes_per_token=16_384)


class BeforeTheQuestion(PlacementPolicy):
    """One checkpoint before the prompt's end, as far back as three in four of the last prompts diverged."""

    def __init__(self, *, num_remembered: int = 64) -> None:
        self._distances: deque[int] = deque(maxlen=num_remembered)

    def place(self, request: PlacementRequest) -> Placement:
        """Return the position. Reads only: the same request twice gives the same placement."""
        ranked = sorted(self._distances)
        distance = ranked[len(ranked) * 3 // 4] if ranked else 0
        position = (request.num_tokens - distance) // request.grid * request.grid
        return Placement((position,) if position > request.resume_position else ())

    def observe(self, request: PlacementRequest) -> None:
        """Learn from a request that was served: the place where it left an earlier prompt."""
        if request.overlap_depth:
            self._distances.append(request.num_tokens - request.overlap_depth)


def reused_fraction(log: str, policy: CachePolicy | PlacementPolicy | str) -> float:
    """Serve a log from one cache, as an engine would; return the share of tokens that need no computing."""
    requests = list(open_trace(log))
    cache = PrefixCache(
        capacity_bytes="6GiB",
        footprint=FOOTPRINT,
        policy=policy,
        grid=GRID,
        key_tokens=requests[0].key_tokens,  # tokens that one key of the log stands for
    )
    source = ContentlessPayloads(FOOTPRINT, segment_tokens=GRID)
    for request in requests:
        with cache.acquire(request.keys, num_tokens=request.num_tokens, tenant=request.tenant) as lease:
            cache.commit(lease, cache.plan(lease), source)
    return cache.statistics().reused_fraction


def main() -> None:
    """Compare it with the plainest policy and with the default."""
    log = sys.argv[1] if len(sys.argv) > 1 else "synthetic:documents,requests=300,seed=1"
    policies: dict[str, PlacementPolicy | str] = {
        "tail": "tail",
        "BeforeTheQuestion": BeforeTheQuestion(),
        "learned": "learned",
    }
    for name, policy in policies.items():
        # With a placement alone, the least recently used goes first; a CachePolicy has an eviction too.
        print(f"{name:20} {reused_fraction(log, policy):.1%}")


if __name__ == "__main__":
    main()
