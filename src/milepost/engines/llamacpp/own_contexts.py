"""Places for strict numerics: a context for each live sequence, filled from its first cell on."""

from collections.abc import Sequence

from milepost.engines.llamacpp.context import Context
from milepost.engines.llamacpp.payload import LlamaKV
from milepost.engines.llamacpp.places import (
    LEAST_CELLS,
    MOST_IDLE,
    ROOM_FOR_ANSWER,
    LlamaSequence,
    NewContext,
    Places,
    size_class,
)
from milepost.engines.llamacpp.transfer import Transfer

__all__ = ["OwnContexts"]

_ENDLESS = 1 << 62


class OwnContexts(Places):
    """A context for each live sequence.

    Args:
        new_context: Makes a context of some number of cells and sequences.
        transfer: Moves a sequence that outgrows its context.
        most_tokens: Of one sequence.
    """

    def __init__(self, new_context: NewContext, *, transfer: Transfer, most_tokens: int) -> None:
        self._new_context = new_context
        self._transfer = transfer
        self._most_tokens = most_tokens
        self._idle: list[LlamaSequence] = []  # the longest unused first

    def take(self, num_tokens: int, kv: Sequence[LlamaKV] = ()) -> tuple[LlamaSequence, int]:
        """See :meth:`Places.take`."""
        fitting = [each for each in self._idle if each.room >= num_tokens]
        best = max(fitting, key=lambda each: each.num_here(kv), default=None)
        if best is None:
            # What is too small for this is given up for it.
            while len(self._idle) >= MOST_IDLE:
                self._idle.pop(0).context.close()
            context = self._context_for(num_tokens + ROOM_FOR_ANSWER)
            return LlamaSequence(context, 0, spare=1, room=self._room_in(context)), 0
        self._idle.remove(best)
        num_here = best.num_here(kv)
        sequence = LlamaSequence(best.context, 0, spare=1, room=best.room)
        sequence.position = kv[num_here - 1].end if num_here else 0
        self._transfer.take_back(sequence.context, 0, position=sequence.position)
        sequence.note_all_of(best, sequence.position)
        return sequence, num_here

    def make_room(self, sequence: LlamaSequence, num_tokens: int) -> None:
        """See :meth:`Places.make_room`. O(bytes of the sequence); seldom, since each time it doubles."""
        if num_tokens <= sequence.room:
            return
        target = self._context_for(num_tokens)
        self._transfer.move(sequence.context, sequence.number, target, 0, position=sequence.position)
        sequence.context.close()
        sequence.context, sequence.room = target, self._room_in(target)

    def give_back(self, sequence: LlamaSequence) -> None:
        """See :meth:`Places.give_back`."""
        if sequence.is_closed:
            return
        sequence.is_closed = True
        self._idle.append(sequence)
        while len(self._idle) > MOST_IDLE:
            self._idle.pop(0).context.close()

    def close(self) -> None:
        """See :meth:`Places.close`."""
        while self._idle:
            self._idle.pop().context.close()

    def _context_for(self, num_tokens: int) -> Context:
        num_cells = min(size_class(num_tokens), max(LEAST_CELLS, self._most_tokens))
        return self._new_context(num_cells if self._transfer.memory.has_kv else LEAST_CELLS, 2)

    def _room_in(self, context: Context) -> int:
        """A state takes no cells."""
        return context.num_cells if self._transfer.memory.has_kv else _ENDLESS
