"""The beginning of a trace that warms a cache up and is left out of the figures.

A cache begins empty, and a server's does not: figures of a short log are figures of its first hour. The cache
runs over all requests; only those after the warm-up are counted, of every policy and of the ceiling alike.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from milepost.errors import ConfigurationError
from milepost.traces import TraceRequest

__all__ = ["WarmUp", "WarmUpEnd"]

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%|k|M|s|min|h|d)?")
_MULTIPLES = {None: 1, "k": 1_000, "M": 1_000_000}
_SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
_RULE = "write a number of requests (1000, 10k), a share below 100% (10%, 0.1), or a time (90s, 10min, 2h)"


@final
@dataclass(frozen=True, slots=True)
class WarmUp:
    """How much of a trace is left out of the figures; one of the three, or nothing.

    Args:
        requests: A number of requests.
        share: This part of all of them, below 1. It takes the whole trace in memory to know how many.
        seconds: Those that came within this many seconds of the first, by the log's own clock.

    Raises:
        ConfigurationError: an amount breaks its rule, or several are given.
    """

    requests: int = 0
    share: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        given = (bool(self.requests), self.share is not None, self.seconds is not None)
        if self.requests < 0 or sum(given) > 1:
            raise ConfigurationError(f"{self!r}; give one amount of at least 0")
        if (self.share is not None and not 0 <= self.share < 1) or (self.seconds or 0) < 0:
            raise ConfigurationError(
                f"{self!r}; a share is at least 0 and below 1, a time at least 0 seconds"
            )

    @classmethod
    def parse(cls, text: str) -> "WarmUp":
        """Return what is written as ``1000``, ``10k``, ``10%``, ``0.1``, ``90s``, ``10min`` or ``2h``.

        Raises:
            ConfigurationError: it is none of these.

        >>> WarmUp.parse("10%")
        WarmUp(requests=0, share=0.1, seconds=None)
        """
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            raise ConfigurationError(f"after={text!r}; {_RULE}")
        amount, unit = float(match[1]), match[2]
        if unit == "%":
            if amount >= 100:
                raise ConfigurationError(f"after={text!r} would leave nothing to count; {_RULE}")
            return cls(share=amount / 100)
        if unit in _SECONDS:
            return cls(seconds=amount * _SECONDS[unit])
        if unit is None and 0 < amount < 1:
            return cls(share=amount)
        requests = amount * _MULTIPLES[unit]
        if not requests.is_integer():
            raise ConfigurationError(f"after={text!r} is no whole number of requests; {_RULE}")
        return cls(requests=int(requests))

    def number_of(self, requests: Iterable[TraceRequest]) -> int:
        """Return how many of ``requests`` it leaves out.

        Raises:
            ConfigurationError: that is all of them, or a time is asked for and a request has none.
        """
        end = WarmUpEnd(self)
        for request in requests:
            end.add(request)
        return end.number()


@final
class WarmUpEnd:
    """Finds where a warm-up ends while the requests go by."""

    def __init__(self, warm_up: WarmUp) -> None:
        self._warm_up = warm_up
        self._num_requests = 0
        self._num_before = 0
        self._first_seconds: float | None = None
        self._is_over = False

    def add(self, request: TraceRequest) -> bool:
        """Take one more request; return whether it counts, which a share cannot say.

        Raises:
            ConfigurationError: a time is asked for and the request has none.
        """
        if not self._is_over:
            self._is_over = self._ends_before(request)
            self._num_before += not self._is_over
        self._num_requests += 1
        return self._is_over

    def number(self) -> int:
        """Return how many requests are left out, all being there.

        Raises:
            ConfigurationError: that is all of them.
        """
        share = self._warm_up.share
        number = self._num_before if share is None else int(share * self._num_requests)
        if number >= self._num_requests:
            raise ConfigurationError(
                f"a warm-up of {number:,} requests leaves none of {self._num_requests:,} to count; give less "
                "(--after)"
            )
        return number

    def _ends_before(self, request: TraceRequest) -> bool:
        if self._warm_up.share is not None:
            return False
        if self._warm_up.seconds is None:
            return self._num_requests >= self._warm_up.requests
        if request.arrival_seconds is None:
            raise ConfigurationError(
                f"request {request.request_id!r} has no time, and the warm-up is {self._warm_up.seconds:g} "
                "seconds; give a number of requests or a share (--after 1000, --after 10%)"
            )
        if self._first_seconds is None:
            self._first_seconds = request.arrival_seconds
        return request.arrival_seconds - self._first_seconds >= self._warm_up.seconds
