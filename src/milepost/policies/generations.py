"""Generations of prompts: how many earlier ones each goes on from, and how they are told apart."""

from milepost.store import SeenPrompt

__all__ = ["continues", "generation_after", "generation_row", "is_overlap", "num_generation_rows"]

# A prompt that shares at least this much of an earlier one continues it. The one constant that has to stay
# well off its end: were only whole prompts continued, no question about a document would count as the next
# one.
_CONTINUES = 0.5
# Shorter overlaps say nothing, unless they are most of the earlier prompt: every chat begins with the same
# few template tokens.
_LEAST_OVERLAP_TOKENS = 64
# Generations 0 to 4 each for itself, then 5 and 6, 7 to 9, and more.
_GENERATION_ROWS = (0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7)


def continues(shared_tokens: int, num_tokens: int) -> bool:
    """Return whether who shares so much of a prompt of ``num_tokens`` goes on from it."""
    return shared_tokens >= _CONTINUES * num_tokens


def is_overlap(num_tokens: int) -> bool:
    """Return whether so many tokens are more than the template that every prompt begins with."""
    return num_tokens >= _LEAST_OVERLAP_TOKENS


def generation_after(earlier: SeenPrompt, depth: int) -> int | None:
    """Return the generation of a prompt that shares ``depth`` tokens of ``earlier``; None where that is no
    more than the template that every prompt begins with.
    """
    if continues(depth, earlier.num_tokens):
        return earlier.generation + 1
    return 0 if is_overlap(depth) else None


def generation_row(count: int) -> int:
    """Return the class of a number of generations, or of anything counted alike."""
    return _GENERATION_ROWS[min(max(0, count), len(_GENERATION_ROWS) - 1)]


def num_generation_rows() -> int:
    """Return how many classes there are."""
    return _GENERATION_ROWS[-1] + 1
