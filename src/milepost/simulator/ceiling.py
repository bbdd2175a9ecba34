"""The most that any cache could reuse of a trace: endless memory, with a checkpoint at every grid position.

That is, of each request, what it shares with any earlier one, floored to the grid and short of its last token
(whose logits are the answer). The same cache finds it, with a history that never forgets; so this one pass
grows with the trace, by the keys that no earlier request had.
"""

import sys
from array import array
from typing import final

from milepost.footprint import Footprint
from milepost.placement import NoCheckpoints
from milepost.prefix_cache import PrefixCache
from milepost.simulator.replay import Replayer
from milepost.traces import TraceRequest

__all__ = ["Ceiling"]


@final
class Ceiling:
    """Counts while the requests go by.

    Args:
        key_tokens: Tokens that a key of the trace stands for.
        grid: Checkpoints sit at multiples of this many tokens.

    Attributes:
        num_requests: Requests so far.
    """

    def __init__(self, *, key_tokens: int, grid: int) -> None:
        self.num_requests = 0
        # One of each a request: what is left out of the figures may be known only at the end.
        self._input_tokens = array("q")
        self._reusable_tokens = array("q")
        # Nothing is stored, so any budget does.
        cache = PrefixCache(
            capacity_bytes=1,
            footprint=Footprint(checkpoint_bytes=1, kv_bytes_per_token=0),
            policy=NoCheckpoints(),
            grid=grid,
            key_tokens=key_tokens,
            history_tokens=sys.maxsize,
        )
        self._replayer = Replayer(cache)

    def fraction(self, *, after: int = 0) -> float:
        """Return the reusable part of the input tokens of all requests after those of the warm-up."""
        input_tokens = sum(self._input_tokens[after:])
        return sum(self._reusable_tokens[after:]) / input_tokens if input_tokens else 0.0

    def step(self, trace_request: TraceRequest) -> None:
        """Count one more request. O(keys)."""
        report = self._replayer.step(trace_request).report
        self.num_requests += 1
        self._input_tokens.append(report.num_tokens)
        self._reusable_tokens.append(report.num_tokens - report.unseen - report.alignment)
