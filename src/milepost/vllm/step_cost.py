"""What one more step costs, learned from the steps: a prefill that is cut for a checkpoint takes one more.

A step takes ``fixed + per_token * tokens`` seconds. *Fixed* is what it takes whatever it computes: weights
are read, kernels launched, requests scheduled. So a stop costs as much as computing ``fixed / per_token``
tokens, and is worth it where requests to come will save more.

    A step begins when it was scheduled, or when the one before it came in, whichever is later: where steps
    are scheduled ahead (async scheduling), it waits for that one. It ends when it comes in itself.

Both are fitted to the latest steps by the weighted estimator of Theil and Sen: the slope is the median slope
of all pairs of steps, each as heavy as the two are apart, and the rest is the median of what the slope
leaves. So a pause, a compilation or a busy machine leaves no trace. Steps that only decode are steps of no
tokens: where there are some, they tell what is fixed; where there are none, prefills of several lengths do.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import final

import numpy as np

__all__ = ["StepCost"]

# Steps of each kind that are remembered; those that are needed, and how far apart the longest and the
# shortest quarter of them have to be.
_REMEMBERED, _NEEDED, _LEAST_SPREAD_TOKENS = 32, 8, 64
# Fewer prompt tokens than that tell nothing of what a token takes.
_LEAST_PREFILL_TOKENS = 32
# What a stop is taken to cost before anything is known, and at least and at most: no step is free, and a
# token that takes no time at all is one that was not measured.
_UNKNOWN_TOKENS, _LEAST_TOKENS, _MOST_TOKENS = 256, 16, 4096
# Steps before the next fit: what a step costs does not change from one to the next.
_STEPS_PER_FIT = 16


@final
class StepCost:
    """See the module.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._decodes: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._prefills: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._scheduled: deque[tuple[float, int]] = deque()
        self._last_end = 0.0
        self._num_unfitted = 0
        self._stop_tokens = _UNKNOWN_TOKENS

    @property
    def stop_tokens(self) -> int:
        """What a stop costs, in tokens computed."""
        self.settle()
        return self._stop_tokens

    def note_schedule(self, num_prefill_tokens: int) -> None:
        """Note that a step was scheduled, which computes ``num_prefill_tokens``."""
        self._scheduled.append((self._clock(), num_prefill_tokens))

    def note_output(self) -> None:
        """Note that the oldest step that was scheduled has come in. O(1)."""
        if not self._scheduled:
            return
        end = self._clock()
        begun, num_prefill_tokens = self._scheduled.popleft()
        seconds = end - max(begun, self._last_end)
        self._last_end = end
        if 0 < num_prefill_tokens < _LEAST_PREFILL_TOKENS:
            return
        (self._prefills if num_prefill_tokens else self._decodes).append((num_prefill_tokens, seconds))
        self._num_unfitted += 1

    def settle(self) -> None:
        """Take in the steps that have come in, if there are enough, while there is time for it; else that is
        done when it is asked.
        """
        if self._num_unfitted >= _STEPS_PER_FIT and len(self._prefills) >= _NEEDED:
            self._num_unfitted = 0
            self._fit()

    def _fit(self) -> None:
        num_tokens, seconds = np.array([*self._decodes, *self._prefills]).T
        least, most = np.quantile(num_tokens, (0.25, 0.75))
        if most - least < _LEAST_SPREAD_TOKENS:
            return
        fixed, per_token = _line(num_tokens, seconds)
        if per_token * _MOST_TOKENS <= fixed:
            self._stop_tokens = _MOST_TOKENS
        else:
            self._stop_tokens = (
                max(_LEAST_TOKENS, round(fixed / per_token)) if per_token > 0 else _MOST_TOKENS
            )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the height at 0 and the slope of the line through points of shape ``[n]``. O(n^2 log n).

    Source: Sievers, Weighted rank statistics for simple linear regression, JASA 1978.
    """
    i, j = np.triu_indices(len(x), 1)
    apart = np.abs(x[i] - x[j])
    i, j, apart = i[apart > 0], j[apart > 0], apart[apart > 0]
    slopes = (y[i] - y[j]) / (x[i] - x[j])
    order = np.argsort(slopes)
    passed = np.cumsum(apart[order])
    slope = float(slopes[order[np.searchsorted(passed, passed[-1] / 2)]])
    return float(np.median(y - slope * x)), slope
