"""Where live sequences stand.

*Strict* gives each a context of its own over the same weights, filled from cell 0 on: a token's cell is its
position, whoever else is served. *Fast* gives each a number in one context, so that one call advances many.

Both keep what a sequence leaves behind for a while, with a note of the pieces of KV that lie there. The next
request that begins with some of them finds them in place, and only the rest is copied in. What lies there is
known by the pieces that came from it or went into it, never by its tokens.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from milepost.engines.llamacpp.context import Context
from milepost.engines.llamacpp.payload import LlamaKV
from milepost.engines.llamacpp.transfer import Transfer

__all__ = ["LlamaSequence", "OneContext", "OwnContexts", "Places"]

NewContext = Callable[[int, int], Context]

# A sequence has room for an answer of this many tokens at least before it has to move.
_ROOM_FOR_ANSWER = 256
_LEAST_CELLS = 1024
_ENDLESS = 1 << 62
# Left places that are kept, with the memory of their contexts.
_MOST_IDLE = 2


class LlamaSequence:
    """What one request has computed: some tokens at a place in a context.

    Attributes:
        context: Where it lies.
        number: Of its sequence there.
        spare: A sequence beside it that is empty between calls.
        position: Tokens computed.
        room: Tokens that it may hold before it has to move.
        is_closed: Whether it was given back.
    """

    def __init__(self, context: Context, number: int, *, spare: int, room: int) -> None:
        self.context = context
        self.number = number
        self.spare = spare
        self.room = room
        self.position = 0
        self.is_closed = False
        self._pieces: dict[tuple[int, int], weakref.ref[LlamaKV]] = {}

    def note(self, piece: LlamaKV) -> None:
        """Remember that ``piece`` is what lies here."""
        self._pieces[piece.start, piece.end] = weakref.ref(piece)

    def note_all_of(self, other: "LlamaSequence", end: int) -> None:
        """Remember that what lies before ``end`` lies in ``other``."""
        self._pieces = {span: piece for span, piece in other._pieces.items() if span[1] <= end}

    def num_here(self, kv: Sequence[LlamaKV]) -> int:
        """Return how many of ``kv``, from the first on, lie here."""
        for number, piece in enumerate(kv):
            known = self._pieces.get((piece.start, piece.end))
            if known is None or known() is not piece:
                return number
        return len(kv)

    def forget(self, start: int = 0) -> None:
        """Forget what lies at ``start`` and behind."""
        self._pieces = {span: piece for span, piece in self._pieces.items() if span[1] <= start}


class Places(ABC):
    """Hands out places. What is handed out is empty but for the pieces that it is said to hold."""

    @abstractmethod
    def take(self, num_tokens: int, kv: Sequence[LlamaKV] = ()) -> tuple[LlamaSequence, int]:
        """Return a place for ``num_tokens`` tokens and an answer, and how many of ``kv`` lie there already."""

    @abstractmethod
    def make_room(self, sequence: LlamaSequence, num_tokens: int) -> None:
        """See to it that ``sequence`` may hold ``num_tokens``, by moving it to a larger place."""

    @abstractmethod
    def give_back(self, sequence: LlamaSequence) -> None:
        """Take a place back. Harmless when done twice."""

    @abstractmethod
    def close(self) -> None:
        """Free all that nobody uses."""


class OwnContexts(Places):
    """A context for each live sequence.

    Args:
        new_context: Makes a context of so many cells and sequences.
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
            while len(self._idle) >= _MOST_IDLE:
                self._idle.pop(0).context.close()
            context = self._context_for(num_tokens + _ROOM_FOR_ANSWER)
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
        while len(self._idle) > _MOST_IDLE:
            self._idle.pop(0).context.close()

    def close(self) -> None:
        """See :meth:`Places.close`."""
        while self._idle:
            self._idle.pop().context.close()

    def _context_for(self, num_tokens: int) -> Context:
        num_cells = min(_size_class(num_tokens), max(_LEAST_CELLS, self._most_tokens))
        return self._new_context(num_cells if self._transfer.memory.has_kv else _LEAST_CELLS, 2)

    def _room_in(self, context: Context) -> int:
        """A state takes no cells."""
        return context.num_cells if self._transfer.memory.has_kv else _ENDLESS


class OneContext(Places):
    """A number in one context for each live sequence; pieces that several hold are there once.

    Args:
        new_context: Makes a context of so many cells and sequences.
        transfer: Moves all sequences where they outgrow it.
    """

    def __init__(self, new_context: NewContext, *, transfer: Transfer) -> None:
        self._new_context = new_context
        self._transfer = transfer
        self._context: Context | None = None
        self._num_sequences = 12
        # Whoever forgets to give one back loses it all the same.
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
        while len(self._idle) > _MOST_IDLE:
            self._drop_idle(next(iter(self._idle)))

    def close(self) -> None:
        """See :meth:`Places.close`."""
        self._forget_idle()
        self._context = None

    def _cells_for(self, num_tokens: int) -> int:
        """A state takes no cells."""
        return num_tokens + _ROOM_FOR_ANSWER if self._transfer.memory.has_kv else 0

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
        lost = self._handed_out - self._live.keys() - self._idle.keys()
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
        target = self._new_context(_size_class(num_cells), self._num_sequences)
        for number, sequence in sorted(self._live.items()):
            self._transfer.move(sequence.context, number, target, number, position=sequence.position)
            sequence.context, sequence.spare = target, target.num_sequences - 1
        if self._context is not None:
            self._context.close()
        self._context = target


def _size_class(num_tokens: int) -> int:
    """Return a power of two that is not less."""
    return max(_LEAST_CELLS, 1 << (num_tokens - 1).bit_length())
