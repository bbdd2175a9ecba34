"""What happened when, of late: in bins of a few seconds, and no more of them than a page shows."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

__all__ = ["Bin", "Timeline"]

BIN_SECONDS = 5.0
_NUM_BINS = 120
# Speeds are those of the last whole bins.
_SPEED_BINS = 2


@dataclass(slots=True)
class Bin:
    """Sums of some seconds.

    Attributes:
        number: Of the bin, since the clock's start.
        queries: Prompt tokens of answers that ended.
        hits: Those that were not computed.
        prompt: Prompt tokens whose first token came.
        generated: Tokens made.
    """

    number: int
    queries: int = 0
    hits: int = 0
    prompt: int = 0
    generated: int = 0


@final
class Timeline:
    """See the module.

    Args:
        clock: Seconds from some start on.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bins: deque[Bin] = deque(maxlen=_NUM_BINS)

    def note_prefix(self, *, queries: int, hits: int) -> None:
        """Count the prompt tokens of an answer, and those that were not computed."""
        now = self._now()
        now.queries += queries
        now.hits += hits

    def note_prompt(self, num_tokens: int) -> None:
        """Count a prompt whose first token came."""
        self._now().prompt += num_tokens

    def note_generated(self, num_tokens: int) -> None:
        """Count tokens of answers."""
        self._now().generated += num_tokens

    def speed(self) -> tuple[float, float]:
        """Return prompt tokens and made tokens a second, over the last ten seconds or so."""
        latest = self._number() - _SPEED_BINS
        recent = [each for each in self._bins if each.number >= latest]
        within = self._clock() - latest * BIN_SECONDS
        return sum(each.prompt for each in recent) / within, sum(each.generated for each in recent) / within

    def as_json(self) -> list[dict[str, Any]]:
        """Return the bins in which answers ended, each with its age in bins, the oldest first."""
        latest = self._number()
        return [
            {"bins_ago": latest - each.number, "queries": each.queries, "hits": each.hits}
            for each in self._bins
            if each.queries and latest - each.number < _NUM_BINS
        ]

    def _number(self) -> int:
        return int(self._clock() // BIN_SECONDS)

    def _now(self) -> Bin:
        number = self._number()
        if not self._bins or self._bins[-1].number != number:
            self._bins.append(Bin(number))
        return self._bins[-1]
