"""Payloads out of one place in a context and back into it.

What llama.cpp saves of a sequence is one piece: all its KV, and after it its state. Here it is taken apart
by llama.cpp itself, and no layout is assumed. The KV of some tokens is lent to a spare sequence, whose state
is then overwritten by that of an empty one: what is left is saved as KV alone, and goes back the same way.
The probe (``probe``) makes sure, for each model, that what comes back computes the same bits.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from milepost.engines.llamacpp.context import Bytes, Context
from milepost.engines.llamacpp.payload import LlamaKV, LlamaState, checksum, verify
from milepost.errors import CacheCorruptionError

__all__ = ["Memory", "Transfer"]

_NOTHING: Bytes = np.empty(0, np.uint8)
_NOTHING.flags.writeable = False


class Memory(StrEnum):
    """What a model keeps of the tokens that it has seen."""

    KV = "KV of every token"
    STATE = "a state of fixed size"
    BOTH = "a state and KV"

    @property
    def has_state(self) -> bool:
        """Whether a prompt can be resumed only where a state was kept."""
        return self is not Memory.KV

    @property
    def has_kv(self) -> bool:
        """Whether what is kept grows with every token."""
        return self is not Memory.STATE


class Transfer:
    """See the module.

    Args:
        memory: What the model keeps.
        owner: See ``payload``.
        no_state: What an empty sequence saves as its state.
    """

    def __init__(self, *, memory: Memory, owner: bytes, no_state: Bytes) -> None:
        self.memory = memory
        self._owner = owner
        self._no_state = no_state

    def state(self, context: Context, sequence: int, *, spare: int, position: int) -> LlamaState:
        """Copy the state of a sequence, which has computed ``position`` tokens. O(bytes of it)."""
        data = _NOTHING
        if self.memory.has_state:
            # Saved from the spare sequence always, since the bytes name the sequence that they are of.
            context.copy(sequence, spare)
            data = context.save(spare, state_alone=True)
            context.remove(spare)
        return LlamaState(data, self._owner, checksum(data), position)

    def kv(self, context: Context, sequence: int, start: int, end: int, *, spare: int) -> LlamaKV:
        """Copy the KV of tokens ``[start, end)``. O(bytes of it, and cells)."""
        data = _NOTHING
        if self.memory.has_kv:
            context.copy(sequence, spare, start=start, end=end)
            if self.memory.has_state:
                context.load(spare, self._no_state, state_alone=True)
            data = context.save(spare)
            context.remove(spare)
        return LlamaKV(data, self._owner, checksum(data), start, end)

    def put(
        self, context: Context, sequence: int, state: LlamaState | None, kv: Sequence[LlamaKV], *, spare: int
    ) -> None:
        """Add pieces of KV to a sequence, in order, and at last the state after them.

        Raises:
            CacheCorruptionError: one of them is not of this model, or damaged.
            EngineError: llama.cpp does not take one; the sequence is empty then.
        """
        try:
            for piece in kv if self.memory.has_kv else ():
                verify(piece, owner=self._owner)
                context.load(spare, piece.data)
                context.copy(spare, sequence, start=piece.start, end=piece.end)
                context.remove(spare)
            if self.memory.has_state:
                verify(state, owner=self._owner)
                assert state is not None
                context.load(sequence, state.data, state_alone=True)
        except BaseException:
            context.remove(spare)
            context.remove(sequence)
            raise

    def take_back(self, context: Context, sequence: int, *, position: int) -> None:
        """Leave of a sequence the KV of the tokens before ``position``, and no state."""
        if position == 0 or not self.memory.has_kv:
            context.remove(sequence)
            return
        if self.memory.has_state:
            # KV alone can be taken back anywhere.
            context.load(sequence, self._no_state, state_alone=True)
        context.remove(sequence, start=position)

    def move(
        self, source: Context, number: int, target: Context, target_number: int, *, position: int
    ) -> None:
        """Copy a sequence that has computed ``position`` tokens into an empty one of another context."""
        if position == 0:
            return
        spare = source.num_sequences - 1
        state = self.state(source, number, spare=spare, position=position)
        kv = self.kv(source, number, 0, position, spare=spare)
        self.put(target, target_number, state, [kv], spare=target.num_sequences - 1)
        self.require(target, target_number, position=position)

    def require(self, context: Context, sequence: int, *, position: int) -> None:
        """Look whether a sequence that was put together holds ``position`` tokens, wherever llama.cpp looks.

        It accepts KV without a state, a state without KV, and gaps, and computes something of them.

        Raises:
            CacheCorruptionError: it does not; the sequence is empty then.
        """
        last = position - 1
        due = (last if self.memory.has_state else 0, last)
        if (found := context.span(sequence)) != due:
            context.remove(sequence)
            raise CacheCorruptionError(
                f"what was put together for {position:,} tokens holds positions {found[0]:,} to "
                f"{found[1]:,}, where {due[0]:,} to {due[1]:,} are due; nothing was computed from it"
            )
