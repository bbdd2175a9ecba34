"""Recorded requests through a cache, one after the other.

The cache is the very object that serves an engine, with its planner, its policy and its store; only the
payloads have no content. So what a replay reports is what a server with this cache would have reused. Nothing
but the order of the requests matters: there is no clock here, so times may be missing, jump or run backwards,
and request ids are labels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import final

from milepost.accounting import RequestReport
from milepost.errors import InvalidRequestError
from milepost.placement import Placement, PlacementRequest
from milepost.prefix_cache import PrefixCache
from milepost.store import ContentlessPayloads
from milepost.traces import TraceRequest

__all__ = ["ReplayedRequest", "Replayer", "replay"]


@dataclass(frozen=True, slots=True)
class ReplayedRequest:
    """One request of a trace, and what became of it.

    Attributes:
        trace_request: As it was recorded.
        request: What the policy was told.
        placement: Where it placed checkpoints.
        report: Where every token went.
    """

    trace_request: TraceRequest
    request: PlacementRequest
    placement: Placement
    report: RequestReport


@final
class Replayer:
    """Drives one cache through requests.

    Args:
        cache: Used from its present contents on.
        segment_tokens: The length of a KV segment that the cache was given, if it is not the grid.

    Attributes:
        peak_bytes: The most that was stored after any request, in bytes.
    """

    def __init__(self, cache: PrefixCache, *, segment_tokens: int | None = None) -> None:
        self.cache = cache
        self.peak_bytes = 0
        self._payloads = ContentlessPayloads(cache.footprint, segment_tokens=segment_tokens or cache.grid)

    def step(self, trace_request: TraceRequest) -> ReplayedRequest:
        """Serve one request: match, plan, commit. O(num_tokens), as the cache.

        Raises:
            InvalidRequestError: its keys are blocks of another size than the cache's.
        """
        cache, payloads = self.cache, self._payloads
        if trace_request.key_tokens != cache.key_tokens:
            raise InvalidRequestError(
                f"request {trace_request.request_id!r} has keys of {trace_request.key_tokens} tokens and the "
                f"cache keys of {cache.key_tokens}; keep requests of different block sizes apart"
            )
        with cache.acquire(
            trace_request.keys,
            num_tokens=trace_request.num_tokens,
            tenant=trace_request.tenant,
            breakpoints=trace_request.breakpoints,
        ) as lease:
            placement = cache.plan(lease)
            report = cache.commit(lease, placement, payloads)
        # Memory grows only where something was handed out.
        if payloads.was_asked:
            payloads.was_asked = False
            held = cache.statistics()
            self.peak_bytes = max(self.peak_bytes, held.kv_bytes + held.checkpoint_bytes)
        return ReplayedRequest(trace_request, lease.request, placement, report)


def replay(
    requests: Iterable[TraceRequest], cache: PrefixCache, *, segment_tokens: int | None = None
) -> Iterator[ReplayedRequest]:
    """Drive ``cache`` through ``requests`` and yield what became of each, in constant memory.

    Args:
        requests: In order of arrival, their keys of the cache's ``key_tokens``.
        cache: Used from its present contents on.
        segment_tokens: The length of a KV segment that the cache was given, if it is not the grid.

    Raises:
        InvalidRequestError: the keys of a request are blocks of another size than the cache's.

    >>> from milepost import Footprint, PrefixCache, parse_policy
    >>> from milepost.traces import open_trace
    >>> footprint = Footprint(checkpoint_bytes=1_000_000, kv_bytes_per_token=1_000)
    >>> cache = PrefixCache(capacity_bytes=10**8, footprint=footprint, policy=parse_policy("tail"),
    ...                     grid=16, key_tokens=16)
    >>> trace = open_trace("synthetic:chat,requests=20,seed=1,block=16")
    >>> any(replayed.report.reused for replayed in replay(trace, cache))
    True
    """
    replayer = Replayer(cache, segment_tokens=segment_tokens)
    for trace_request in requests:
        yield replayer.step(trace_request)
