"""Where live sequences stand.

*Strict* gives each a context of its own over the same weights, filled from cell 0 on: a token's cell is its
position, whatever else is served. *Fast* gives each a number in one context, so that one call advances many.

Both keep what a sequence leaves behind for a while, with a note of the pieces of KV that lie there. The next
request that begins with some of them finds them in place, and only the rest is copied in. What lies there is
known by the pieces that came from it or went into it, never by its tokens.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from milepost.engines.llamacpp.context import Context
from milepost.engines.llamacpp.payload import LlamaKV

__all__ = [
    "LEAST_CELLS",
    "MOST_IDLE",
    "ROOM_FOR_ANSWER",
    "LlamaSequence",
    "NewContext",
    "Places",
    "size_class",
]

NewContext = Callable[[int, int], Context]

# A sequence has room for an answer of this many tokens at least before it has to move.
ROOM_FOR_ANSWER = 256
LEAST_CELLS = 1024
# Left places that are kept, with the memory of their contexts.
MOST_IDLE = 2


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
        """Forget what lies at ``start`` and after."""
        self._pieces = {span: piece for span, piece in self._pieces.items() if span[1] <= start}


class Places(ABC):
    """Hands out places. What is handed out is empty but for the pieces that it is said to hold."""

    @abstractmethod
    def take(self, num_tokens: int, kv: Sequence[LlamaKV] = ()) -> tuple[LlamaSequence, int]:
        """Return a place for ``num_tokens`` tokens and an answer, and how many of ``kv`` lie there."""

    @abstractmethod
    def make_room(self, sequence: LlamaSequence, num_tokens: int) -> None:
        """See to it that ``sequence`` may hold ``num_tokens``, by moving it to a larger place."""

    @abstractmethod
    def give_back(self, sequence: LlamaSequence) -> None:
        """Take a place back. Harmless when done twice."""

    @abstractmethod
    def close(self) -> None:
        """Free all that nobody uses."""


def size_class(num_tokens: int) -> int:
    """Return a power of two that is not less."""
    return max(LEAST_CELLS, 1 << (num_tokens - 1).bit_length())
