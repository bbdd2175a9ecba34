"""Many answers in one call (*fast*): a row's logits agree with those it has alone up to rounding."""

from collections.abc import Sequence
from typing import Any

import torch

from milepost.engines.base import Rows
from milepost.engines.llamacpp.places import Places

__all__ = ["SharedRows"]


class SharedRows(Rows):
    """Rows of the one context that all live sequences stand in.

    Args:
        places: Makes room for one token more.
        width: See ``Rows``.
    """

    def __init__(self, places: Places, *, width: int) -> None:
        self._places = places
        self.width = width

    def advance(self, sequences: Sequence[Any], tokens: Sequence[int]) -> Sequence[torch.Tensor]:
        """See :meth:`Rows.advance`."""
        for sequence in sequences:
            self._places.make_room(sequence, sequence.position + 1)
        # Side by side, and in order: without KV, only neighbours share a call of the graph.
        order = sorted(range(len(sequences)), key=lambda index: sequences[index].number)
        found: dict[int, torch.Tensor] = {}
        for first in range(0, len(order), self.width):
            chosen = order[first : first + self.width]
            logits = sequences[chosen[0]].context.decode(
                [tokens[index] for index in chosen],
                sequences=[sequences[index].number for index in chosen],
                positions=[sequences[index].position for index in chosen],
                num_outputs=len(chosen),
            )
            for index, row in zip(chosen, logits, strict=True):
                sequences[index].position += 1
                found[index] = row
        return [found[index] for index in range(len(sequences))]

    def leave(self, sequence: Any, *, keeps: bool) -> None:
        """A sequence keeps its place until it is closed."""
