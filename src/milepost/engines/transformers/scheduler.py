"""Requests taking turns on one model: first come, first admitted, then one step each, round and round.

A turn is one token or one stretch of prefill (a segment; in fast numerics up to eight), so a long prompt
delays the others by that much, never by its whole length. Each request advances a cache of its own; what they
share is stored, immutable and pinned.
"""

from collections import deque

from milepost.counts import as_count
from milepost.engines.transformers.completion import TokenEvent
from milepost.engines.transformers.generation import Generation
from milepost.interrupts import deferred_interrupts

__all__ = ["Scheduler"]


class Scheduler:
    """Interleaves generations. ``max_running`` bounds how many hold a live cache at once."""

    def __init__(self, *, max_running: int = 8) -> None:
        self._max_running = as_count("max_running", max_running, least=1)
        self._waiting: deque[Generation] = deque()
        self._running: deque[Generation] = deque()

    def submit(self, generation: Generation) -> None:
        """Queue a request."""
        self._waiting.append(generation)

    def holds(self, generation: Generation) -> bool:
        """Return whether a request was queued here and is not done. O(requests)."""
        return generation in self._running or generation in self._waiting

    def step(self) -> tuple[Generation, list[TokenEvent]] | None:
        """Give the next request its turn; return it with what it produced, or None where none is left.

        A request that fails is dropped and keeps its error to itself; one that was abandoned is closed here,
        where no change of the cache is under way. The others are unharmed.
        """
        generation = self._next()
        if generation is None:
            return None
        # It stays queued during its turn: whenever an interrupt falls, ``close`` finds what it holds.
        events = generation.step()
        if generation.is_done:
            self._running.popleft()
        else:
            self._running.rotate(-1)
        return generation, events

    def _next(self) -> Generation | None:
        while True:
            for generation in self._running:
                if generation.is_abandoned:
                    generation.close()
            while self._running and self._running[0].is_done:
                self._running.popleft()
            while self._waiting and len(self._running) < self._max_running:
                self._running.append(self._waiting.popleft())
            if not self._running or not self._running[0].is_done:
                return self._running[0] if self._running else None

    def close(self) -> None:
        """Give up everything that is not done."""
        with deferred_interrupts():
            for generation in (*self._running, *self._waiting):
                generation.close()
            self._running.clear()
            self._waiting.clear()
