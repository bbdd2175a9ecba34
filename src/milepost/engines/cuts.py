"""Where a prompt may be cut, and how states are taken on its way."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

__all__ = ["Capture", "Cuts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Where a prefill is cut, so that what is resumed computes what was never interrupted.

    Attributes:
        every: A call ends at every multiple of this, counted from the prompt's start; no call takes more.
        grid: States are taken at multiples of this. Where it is less than ``every``, a cut wherever a state
            is wanted is one of the promise's.
        least: Fewest tokens of one call, where fewer take another kernel.
        stop_tokens: What a state more costs, in tokens computed: the price of a call, where it needs one.
        are_states_inside: States are taken inside a call, which need not end there.
        inside_from: But for those before this position, where a call ends at each all the same.
    """

    every: int
    grid: int
    least: int = 1
    stop_tokens: int = 0
    are_states_inside: bool = False
    inside_from: int = 0

    def next(self, position: int, num_tokens: int, planned: Collection[int]) -> int:
        """Return where the call that begins at ``position`` ends; it takes less than ``least`` more tokens
        than ``every``, and never fewer than ``least``.

        Args:
            position: Tokens computed of the prompt.
            num_tokens: Its length.
            planned: Where a state is wanted, as :meth:`thinned` gives them.

        Complexity: O(positions planned).
        """
        before = min(num_tokens, self.inside_from) if self.are_states_inside else num_tokens
        ahead = (each for each in planned if position + self.least <= each < before)
        wanted = min(ahead, default=num_tokens)
        end = (position // self.every + 1) * self.every
        if end < position + self.least:
            end += self.every
        return wanted if wanted < end + self.least else end

    def thinned(self, planned: Iterable[int], *, start: int, num_tokens: int) -> tuple[int, ...]:
        """Return those of ``planned``, ascending, that a prefill of ``[start, num_tokens)`` can stop at."""
        kept: list[int] = []
        for position in planned:
            if position - (kept[-1] if kept else start) < self.least:
                continue
            if position == num_tokens or num_tokens - position >= self.least:
                kept.append(position)
        return tuple(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """How states are taken of a prompt on its way.

    Attributes:
        is_inside: From inside of a call; else a call ends at each.
        reason: Why, in words.
        inside_from: Where they are taken inside, the first position that they are taken so at.
    """

    is_inside: bool
    reason: str
    inside_from: int = 0

    def __str__(self) -> str:
        way = "from inside a call" if self.is_inside else "where a call ends"
        return f"{way}{f' from token {self.inside_from} on' if self.inside_from else ''} ({self.reason})"
