"""The learned policy on the paper's requests, through the cache that serves prompts.

One byte budget holds KV and checkpoints, in the sizes of the logged runs, so the number of checkpoints is
what comes out, not what goes in. It is counted in two ways, and both must be small: stored by each request,
and held in the cache at a time by each of the N entries that the paper's cache has room for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.paper.fifo import GRID
from benchmarks.paper.rebuild import RebuiltLog, RebuiltRequest
from milepost.footprint import Footprint
from milepost.policies import parse_policy
from milepost.prefix_cache import PrefixCache
from milepost.store import ContentlessPayloads
from milepost.tokens import as_tokens

__all__ = ["LAYER_GROUP", "CacheResult", "fifo_bytes", "read_before", "replay_cache"]

# One layer group of Qwen3.5-0.8B in float32, as the logged runs held it: three gated delta-rule layers (16
# heads of 128 x 128, and three steps of a convolution over 6,144 channels), one attention layer (2 heads of
# 256).
LAYER_GROUP = Footprint(
    checkpoint_bytes=3 * 4 * (16 * 128 * 128 + 4 * 6_144), kv_bytes_per_token=2 * 4 * 2 * 256
)


@dataclass(frozen=True, slots=True)
class CacheResult:
    """What the cache did on the logged requests; the warm-up is not counted."""

    saved_fraction: float
    checkpoints_per_request: float
    checkpoints_per_entry: float
    lost_to_placement: float
    lost_to_eviction: float


def fifo_bytes(log: RebuiltLog, *, num_cached: int, checkpoints_per_entry: float) -> int:
    """Return what the paper's cache takes with so many checkpoints an entry: the KV of ``num_cached`` mean
    sequences that share nothing, and their states.
    """
    kv = num_cached * log.num_tokens * LAYER_GROUP.kv_bytes_per_token // len(log.requests)
    return kv + int(checkpoints_per_entry * num_cached) * LAYER_GROUP.checkpoint_bytes


def read_before(log: RebuiltLog) -> tuple[RebuiltRequest, ...]:
    """Return requests that overlap as ``log``'s do and share no token with it: a stand-in for a warm-up."""
    everything = (*log.warmup, *log.requests)
    offset = 1 + max(int(request.tokens.max()) for request in everything)
    return tuple(RebuiltRequest(each.document, as_tokens(each.tokens + offset)) for each in everything)


def replay_cache(
    log: RebuiltLog,
    policy: str,
    *,
    num_cached: int,
    capacity_bytes: int,
    before: Sequence[RebuiltRequest] = (),
) -> CacheResult:
    """Replay ``log`` under a policy in ``capacity_bytes``, after the requests in ``before``."""
    cache = PrefixCache(
        capacity_bytes=capacity_bytes, footprint=LAYER_GROUP, policy=parse_policy(policy), grid=GRID
    )
    payloads = ContentlessPayloads(LAYER_GROUP, segment_tokens=GRID)
    reports, held = [], 0
    for request in (*before, *log.warmup, *log.requests):
        with cache.acquire(request.tokens) as lease:
            reports.append(cache.commit(lease, cache.plan(lease), payloads))
        if len(reports) > len(before) + len(log.warmup):
            held += cache.statistics().num_checkpoints
    counted = reports[-len(log.requests) :]
    return CacheResult(
        saved_fraction=sum(report.reused for report in counted) / log.num_tokens,
        checkpoints_per_request=sum(report.checkpoints_stored for report in counted) / len(counted),
        checkpoints_per_entry=held / len(counted) / num_cached,
        lost_to_placement=sum(report.placement for report in counted) / log.num_tokens,
        lost_to_eviction=sum(report.eviction for report in counted) / log.num_tokens,
    )
