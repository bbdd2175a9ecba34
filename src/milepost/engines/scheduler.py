"""Requests taking turns on one model: first come, first admitted, then round and round.

A turn is one piece of one prompt, or the next token of every answer that fits in one call of the engine.
After a piece of a prompt the answers have their turn, so that those that run keep coming; a long prompt
delays the others by one piece, never by its whole length. Requests that begin alike and arrive together
compute what they share once (:mod:`milepost.engines.sharing`).
"""

from collections import deque

from milepost.counts import as_count
from milepost.engines.base import Rows
from milepost.engines.completion import TokenEvent
from milepost.engines.generation import Generation
from milepost.engines.sharing import Sharing
from milepost.interrupts import deferred_interrupts

__all__ = ["Scheduler", "Turn"]

# Who had the turn, and what each of them produced.
Turn = list[tuple[Generation, list[TokenEvent]]]


class Scheduler:
    """See the module.

    Args:
        rows: Advances several answers at once.
        sharing: Finds requests that begin alike.
        max_running: Requests that hold a live sequence at once, at most; no more than one call takes, where
            it takes several.
    """

    def __init__(self, rows: Rows, *, sharing: Sharing, max_running: int = 8) -> None:
        max_running = as_count("max_running", max_running, least=1)
        self._rows = rows
        self._sharing = sharing
        self._max_running = max_running if rows.width == 1 else min(max_running, rows.width)
        self._waiting: deque[Generation] = deque()
        self._running: deque[Generation] = deque()
        self._was_prompt = False

    def submit(self, generation: Generation) -> None:
        """Queue a request."""
        self._waiting.append(generation)

    def holds(self, generation: Generation) -> bool:
        """Return whether a request was queued here and is not done. O(requests)."""
        return generation in self._running or generation in self._waiting

    def step(self) -> Turn:
        """Give out the next turn; empty where none is left.

        A request that fails is dropped and keeps its error to itself; one that was abandoned is closed here,
        where no change of the cache is under way. The others are unharmed.
        """
        generation = self._next()
        if generation is None:
            return []
        # They stay queued during their turn: whenever an interrupt falls, ``close`` finds what they hold.
        self._was_prompt = not generation.is_decoding
        if self._was_prompt:
            if not generation.has_begun:
                self._sharing.prepare(generation, [*self._running, *self._waiting])
            turn = [(generation, generation.step())]
        else:
            turn = self._decode(generation)
        for served, _ in turn:
            self._running.remove(served)
            if not served.is_done:
                self._running.append(served)
        return turn

    def _decode(self, first: Generation) -> Turn:
        """Give ``first`` its next token, and as many others theirs as one call takes."""
        others = [each for each in self._running if each.is_decoding and each is not first]
        chosen = [first, *others][: self._rows.width]
        served = [each for each in chosen if each.is_served()]
        turn: Turn = [(each, []) for each in chosen if each not in served]
        turn += [(each, each.start_over()) for each in served if each.must_start_over]
        together = [each for each in served if all(each is not had for had, _ in turn)]
        if not together:
            return turn
        sequences, tokens = zip(*(each.pending for each in together), strict=True)
        try:
            logits = self._rows.advance(sequences, tokens)
        except Exception as error:
            for each in together:
                each.fail(error)
            return turn + [(each, []) for each in together]
        except BaseException:
            for each in together:
                each.close()
            raise
        return turn + [(each, each.decode_with(row)) for each, row in zip(together, logits, strict=True)]

    def _next(self) -> Generation | None:
        for generation in self._running:
            if generation.is_abandoned:
                generation.close()
        self._drop_done()
        while self._waiting and len(self._running) < self._max_running:
            self._running.append(self._waiting.popleft())
            self._drop_done()
        if self._was_prompt:
            for generation in self._running:
                if generation.is_decoding:
                    return generation
        for generation in self._running:
            if generation.is_decoding or not self._sharing.waits(generation, self._running):
                return generation
        return None

    def _drop_done(self) -> None:
        if any(generation.is_done for generation in self._running):
            self._running = deque(each for each in self._running if not each.is_done)

    def close(self) -> None:
        """Give up everything that is not done."""
        with deferred_interrupts():
            for generation in (*self._running, *self._waiting):
                generation.close()
            self._running.clear()
            self._waiting.clear()
