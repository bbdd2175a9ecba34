"""Coordinates in which the place where two prompts diverge repeats from prompt to prompt."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias, final

import numpy as np
import numpy.typing as npt

__all__ = ["Coordinate", "FromEnd", "FromStart"]

IntArray: TypeAlias = npt.NDArray[np.int64]


class Coordinate(Protocol):
    """A way to say where two prompts diverge, such that the number returns from prompt to prompt.

    ``measure`` bins a depth; ``depths`` finds the bins again in another prompt (results outside it are
    ignored). ``deeper_measure_is_larger`` orders the bins.
    """

    @property
    def deeper_measure_is_larger(self) -> bool: ...  # noqa: D102

    def measure(self, overlap_depth: int, num_tokens: int) -> int: ...  # noqa: D102

    def depths(self, measures: IntArray, num_tokens: int) -> IntArray: ...  # noqa: D102


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FromStart:
    """Distance from the prompt's start: shared system prompts, tool definitions, few-shot examples."""

    bin_tokens: int

    @property
    def deeper_measure_is_larger(self) -> bool:
        """A larger distance from the start is deeper."""
        return True

    def measure(self, overlap_depth: int, num_tokens: int) -> int:
        """Return the depth, floored to a bin."""
        return overlap_depth // self.bin_tokens * self.bin_tokens

    def depths(self, measures: IntArray, num_tokens: int) -> IntArray:
        """Return the measures: they are depths."""
        return measures


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class FromEnd:
    """Distance back from the prompt's end: questions after a document, conversations that go on."""

    bin_tokens: int

    @property
    def deeper_measure_is_larger(self) -> bool:
        """A larger distance from the end is shallower."""
        return False

    def measure(self, overlap_depth: int, num_tokens: int) -> int:
        """Return the whole bins after the depth: 0 is the whole prompt but for less than a bin."""
        return (num_tokens // self.bin_tokens - overlap_depth // self.bin_tokens) * self.bin_tokens

    def depths(self, measures: IntArray, num_tokens: int) -> IntArray:
        """Return the depths at these distances from the end of a prompt, on multiples of a bin."""
        return num_tokens // self.bin_tokens * self.bin_tokens - measures
