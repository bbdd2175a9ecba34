"""The few distributions that made-up traffic is drawn from, all in whole numbers."""

import numpy as np

from milepost.traces.synthetic.tokens import Segment

__all__ = ["Pool", "draw_count", "draw_length", "draw_segment"]

# A tail that a lognormal has once in a thousand lines, and no prompt has for ever.
_LONGEST_IN_MEDIANS = 20


def draw_length(random: np.random.Generator, median: int, spread: float) -> int:
    """Return a length: lognormal around its median, as lengths of texts are; ``spread`` is sigma."""
    drawn = round(random.lognormal(np.log(median), spread))
    return min(max(1, drawn), _LONGEST_IN_MEDIANS * median)


def draw_segment(random: np.random.Generator, median: int, spread: float) -> Segment:
    """Return a segment that no other prompt has, of a random length."""
    seed = int(random.integers(1 << 63))
    return Segment(seed, draw_length(random, median, spread))


def draw_count(random: np.random.Generator, mean: float) -> int:
    """Return how often something is repeated: at least once, geometric."""
    return int(random.geometric(1 / max(1.0, mean)))


class Pool:
    """Segments that many sessions share, the first ones more often (Zipf's law).

    Args:
        random: Draws the segments now.
        size: How many there are.
        median: Of their lengths in tokens.
        spread: Of their lengths' logarithms.
    """

    def __init__(self, random: np.random.Generator, size: int, *, median: int, spread: float) -> None:
        self._segments = [draw_segment(random, median, spread) for _ in range(size)]
        self._cumulative = np.cumsum(1.0 / np.arange(1, size + 1))

    def draw(self, random: np.random.Generator) -> Segment:
        """Return one of them. O(log size)."""
        at = random.random() * self._cumulative[-1]
        return self._segments[int(np.searchsorted(self._cumulative, at, side="right"))]
