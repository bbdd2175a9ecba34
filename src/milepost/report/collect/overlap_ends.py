"""Where requests stop following earlier prompts, in each coordinate that a policy could learn it in.

The end of an overlap is one of three kinds. Either there is no *parting*: the earlier prompt, or this one,
simply ends there. Or two prompts diverge, at a place where others have diverged before, or at a new one. A
place is its whole prefix, so two prompts that differ before it never share one.
"""

from collections import OrderedDict
from enum import Enum
from typing import final

import xxhash

from milepost.placement import PlacementRequest
from milepost.report.collect.log_histogram import LogHistogram
from milepost.traces import TraceRequest

__all__ = ["PARTING_ORDINALS", "OverlapEnd", "OverlapEnds"]

_BINS_PER_OCTAVE = 2
# Places are forgotten in order of their last use; this many take a few megabytes.
_REMEMBERED_PLACES = 1 << 16

#: First prompt to diverge at a place, the second, the third or fourth, ...: the least ordinal of each class.
PARTING_ORDINALS = (1, 2, 3, 5, 9, 17)


class OverlapEnd(Enum):
    """What an overlap ends in."""

    NO_PARTING = "no_parting"
    KNOWN_PLACE = "known_place"
    NEW_PLACE = "new_place"


@final
class OverlapEnds:
    """Histograms of the ends of overlaps.

    Attributes:
        from_start: Shared tokens, by kind of end.
        from_end: Tokens of the earlier prompt after the end of the overlap, by kind.
        ordinals: How many prompts were the first to diverge at a place, the second, and so on, in the classes
            of ``PARTING_ORDINALS``.
        num_unshared: Requests that shared nothing.
    """

    def __init__(self) -> None:
        self.from_start = {kind: LogHistogram(bins_per_octave=_BINS_PER_OCTAVE) for kind in OverlapEnd}
        self.from_end = {kind: LogHistogram(bins_per_octave=_BINS_PER_OCTAVE) for kind in OverlapEnd}
        self.ordinals = [0] * len(PARTING_ORDINALS)
        self.num_unshared = 0
        self._visits: OrderedDict[tuple[str, int], int] = OrderedDict()

    @property
    def num_shared(self) -> int:
        """Requests that shared anything."""
        return sum(histogram.total for histogram in self.from_start.values())

    def num_ending(self, kind: OverlapEnd) -> int:
        """Return how many overlaps ended so."""
        return self.from_start[kind].total

    def add(self, trace_request: TraceRequest, request: PlacementRequest) -> None:
        """Count one request. O(overlap depth / key_tokens)."""
        depth = request.overlap_depth
        if not depth:
            self.num_unshared += 1
            return
        earlier_tokens = request.matched_num_tokens or request.num_tokens
        after = max(0, earlier_tokens - depth)
        # Where a key is a block, an end inside the last one is as exact as it can be told.
        if min(after, request.num_tokens - depth) < trace_request.key_tokens:
            kind = OverlapEnd.NO_PARTING
            after = 0 if after < trace_request.key_tokens else after
        else:
            kind = self._visit(trace_request, depth)
        self.from_start[kind].add(depth)
        self.from_end[kind].add(after)

    def _visit(self, trace_request: TraceRequest, depth: int) -> OverlapEnd:
        num_keys = -(-depth // trace_request.key_tokens)
        place = (trace_request.tenant, xxhash.xxh3_64_intdigest(trace_request.keys[:num_keys].data))
        ordinal = self._visits.pop(place, 0) + 1
        self._visits[place] = ordinal
        if len(self._visits) > _REMEMBERED_PLACES:
            self._visits.popitem(last=False)
        self.ordinals[sum(ordinal >= least for least in PARTING_ORDINALS) - 1] += 1
        return OverlapEnd.KNOWN_PLACE if ordinal > 1 else OverlapEnd.NEW_PLACE
