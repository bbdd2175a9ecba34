"""Many answers in one call (*fast*): a row's logits agree with those it has alone up to rounding."""

from collections.abc import Sequence

import torch

from milepost.engines.base import Rows
from milepost.engines.llamacpp.places import LlamaSequence, Places

__all__ = ["SharedRows"]


class SharedRows(Rows):
    """Rows of the one context that all live sequences stand in.

    Args:
        places: Makes room for one token more.
        most_rows: Of one call.
    """

    def __init__(self, places: Places, *, most_rows: int) -> None:
        self._places = places
        self._most_rows = most_rows

    def advance(self, sequences: Sequence[LlamaSequence], tokens: Sequence[int]) -> Sequence[torch.Tensor]:
        """See :meth:`Rows.advance`."""
        for sequence in sequences:
            self._places.make_room(sequence, sequence.position + 1)
        # Side by side, and in order: without KV, only neighbours share a call of the graph.
        order = sorted(range(len(sequences)), key=lambda index: sequences[index].number)
        found: dict[int, torch.Tensor] = {}
        for first in range(0, len(order), self._most_rows):
            chosen = order[first : first + self._most_rows]
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

    def leave(self, sequence: LlamaSequence, *, keeps: bool) -> None:
        """A sequence keeps its place until it is closed."""
