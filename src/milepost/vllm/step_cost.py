"""What one more step costs, learned from the steps: a prefill that is cut for a checkpoint takes one more.

A step that only decodes takes the *fixed* time of a step: weights are read, kernels launched, requests
scheduled, whatever it computes. What a step with a prefill takes beyond that, it takes for the prompt's
tokens. So a stop costs as much as computing ``fixed / (seconds a token)`` tokens, and is worth it where
requests to come will save more.

    A step begins when it was scheduled, or when the one before it came in, whichever is later: where steps
    are scheduled ahead (async scheduling), it waits for that one. It ends when it comes in itself.

Both are medians of the latest steps, so that a pause, a compilation or a busy machine leaves no trace; the
latter over tokens, since a short prefill tells little of what a token takes.
"""

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import final

__all__ = ["StepCost"]

# Steps of each kind that are remembered, and that are needed.
_REMEMBERED, _NEEDED = 64, 8
# Fewer prompt tokens than that tell nothing of what a token takes.
_LEAST_PREFILL_TOKENS = 32
# What a stop is taken to cost before anything is known, and at most: a token that takes no time at all is one
# that was not measured.
_UNKNOWN_TOKENS, _MOST_TOKENS = 256, 4096


@final
class StepCost:
    """See the module.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._decode_seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._prefills: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._scheduled: deque[tuple[float, int]] = deque()
        self._last_end = 0.0
        self._stop_tokens: int | None = None

    def note_schedule(self, num_prefill_tokens: int) -> None:
        """Note that a step was scheduled, which computes so many tokens of prompts."""
        self._scheduled.append((self._clock(), num_prefill_tokens))

    def note_output(self) -> None:
        """Note that the oldest step that was scheduled has come in."""
        if not self._scheduled:
            return
        end = self._clock()
        begun, num_prefill_tokens = self._scheduled.popleft()
        seconds = end - max(begun, self._last_end)
        self._last_end = end
        if num_prefill_tokens == 0:
            self._decode_seconds.append(seconds)
        elif num_prefill_tokens >= _LEAST_PREFILL_TOKENS:
            self._prefills.append((num_prefill_tokens, seconds))
        self._stop_tokens = None

    @property
    def stop_tokens(self) -> int:
        """What a stop costs, in tokens computed. O(1) until the next step."""
        if self._stop_tokens is None:
            self._stop_tokens = self._learned_stop_tokens()
        return self._stop_tokens

    def _learned_stop_tokens(self) -> int:
        if min(len(self._decode_seconds), len(self._prefills)) < _NEEDED:
            return _UNKNOWN_TOKENS
        fixed = median(self._decode_seconds)
        per_token = _median_token([((each - fixed) / num, num) for num, each in self._prefills])
        if per_token * _MOST_TOKENS <= fixed:
            return _MOST_TOKENS
        return round(fixed / per_token)


def _median_token(prefills: list[tuple[float, int]]) -> float:
    """Return what the middle one of all tokens took, each as long as the others of its prefill."""
    passed, half = 0, sum(num_tokens for _, num_tokens in prefills) / 2
    for seconds, num_tokens in sorted(prefills):
        passed += num_tokens
        if passed >= half:
            return seconds
    raise AssertionError("no prefills")
