"""Places for fast numerics: a number in one context for each live sequence, so that a call advances many."""

import weakref
from collections.abc import Sequence

from milepost.engines.llamacpp.context import Context
from milepost.engines.llamacpp.payload import LlamaKV
from milepost.engines.llamacpp.places import (
    MOST_IDLE,
    ROOM_FOR_ANSWER,
    LlamaSequence,
    NewContext,
    Places,
    size_class,
)
from milepost.engines.llamacpp.transfer import Transfer

__all__ = ["OneContext"]


class OneContext(Places):
    """A number in one context for each live sequence; pieces that several hold are there once.

    Args:
        new_context: Makes a context of some number of cells and sequences.
        transfer: Moves all sequences where they outgrow it.
    """

    def __init__(self, new_context: NewContext, *, transfer: Transfer) -> None:
        self._new_context = new_context
        self._transfer = transfer
        self._context: Context | None = None
        self._num_sequences = 12
        # One that is forgotten is lost all the same.
        self._live: weakref.WeakValueDictionary[int, LlamaSequence] = weakref.WeakValueDictionary()
        self._idle: dict[int, LlamaSequence] = {}  # the longest unused first
        self._handed_out: set[int] = set()

    def take(self, num_tokens: int, kv: Sequence[LlamaKV] = ()) -> tuple[LlamaSequence, int]:
        """See :meth:`Places.take`."""
        room = self._cells_for(num_tokens)
        source = max(
            (*self._idle.values(), *self._live.values()), key=lambda each: each.num_here(kv), default=None
        )
        self._require_room(room, sparing=source)
        number = self._free_number()
        context = self._context
        assert context is not None
        context.remove(number)
        sequence = LlamaSequence(context, number, spare=context.num_sequences - 1, room=room)
        # Nothing of it lies here any more where it had to go.
        num_here = 0 if source is None else source.num_here(kv)
        if source is not None and num_here:
            sequence.position = kv[num_here - 1].end
            context.copy(source.number, number, start=0, end=sequence.position)
            self._transfer.take_back(context, number, position=sequence.position)
            sequence.note_all_of(source, sequence.position)
        self._live[number] = sequence
        self._handed_out.add(number)
        return sequence, num_here

    def make_room(self, sequence: LlamaSequence, num_tokens: int) -> None:
        """See :meth:`Places.make_room`."""
        if num_tokens > sequence.room and self._transfer.memory.has_kv:
            more = self._cells_for(num_tokens) - sequence.room
            self._require_room(more, sparing=None)
            sequence.room += more

    def give_back(self, sequence: LlamaSequence) -> None:
        """See :meth:`Places.give_back`."""
        if sequence.is_closed:
            return
        sequence.is_closed = True
        self._live.pop(sequence.number, None)
        sequence.room = min(sequence.room, sequence.position)
        self._idle[sequence.number] = sequence
        while len(self._idle) > MOST_IDLE:
            self._drop_idle(next(iter(self._idle)))

    def close(self) -> None:
        """See :meth:`Places.close`."""
        self._forget_idle()
        self._context = None

    def _cells_for(self, num_tokens: int) -> int:
        """A state takes no cells."""
        return num_tokens + ROOM_FOR_ANSWER if self._transfer.memory.has_kv else 0

    def _require_room(self, num_tokens: int, *, sparing: LlamaSequence | None) -> None:
        """See to it that there are cells for ``num_tokens`` more than what is held, shared or not."""
        self._sweep()
        while self._context is not None and self._held() + num_tokens > self._context.num_cells:
            victim = next((number for number, each in self._idle.items() if each is not sparing), None)
            if victim is None:
                break
            self._drop_idle(victim)
        if self._context is None or self._held() + num_tokens > self._context.num_cells:
            self._rebuild(self._held() + num_tokens)

    def _sweep(self) -> None:
        """Empty what was handed out and lost."""
        lost = self._handed_out.difference(self._live.keys(), self._idle)
        for number in lost:
            if self._context is not None:
                self._context.remove(number)
        self._handed_out -= lost

    def _free_number(self) -> int:
        """Return the lowest number that nobody has: families without KV want them side by side."""
        assert self._context is not None
        if len(self._live) + 1 >= self._context.num_sequences:
            self._num_sequences *= 2
            self._rebuild(self._context.num_cells)
        number = next(each for each in range(self._num_sequences) if each not in self._live)
        if number in self._idle:
            self._make_idle_leave(number)
        return number

    def _make_idle_leave(self, number: int) -> None:
        """Move what lies idle at ``number`` out of the way of a live one."""
        idle, context = self._idle[number], self._context
        assert context is not None
        taken = {*self._live, *self._idle}
        free = [each for each in range(context.num_sequences - 1) if each not in taken]
        if not free:
            self._drop_idle(number)
            return
        context.remove(free[-1])
        context.copy(number, free[-1])
        context.remove(number)
        del self._idle[number]
        idle.number = free[-1]
        self._idle[idle.number] = idle
        self._handed_out.add(idle.number)

    def _held(self) -> int:
        return sum(each.room for each in (*self._live.values(), *self._idle.values()))

    def _drop_idle(self, number: int) -> None:
        idle = self._idle.pop(number)
        idle.context.remove(number)
        idle.forget()

    def _forget_idle(self) -> None:
        for idle in self._idle.values():
            idle.forget()
        self._idle.clear()

    def _rebuild(self, num_cells: int) -> None:
        """Move all live sequences to a larger context. O(bytes of them)."""
        self._forget_idle()
        target = self._new_context(size_class(num_cells), self._num_sequences)
        for number, sequence in sorted(self._live.items()):
            self._transfer.move(sequence.context, number, target, number, position=sequence.position)
            sequence.context, sequence.spare = target, target.num_sequences - 1
        if self._context is not None:
            self._context.close()
        self._context = target
