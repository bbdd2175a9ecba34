"""The seam for llama.cpp (``engines.base.Driver``): one model, its live sequences and their payloads."""

from collections.abc import Sequence

import torch

from milepost.disk import Packed
from milepost.engines.base import Driver, OneByOne, Rows
from milepost.engines.cuts import Cuts
from milepost.engines.llamacpp import packing
from milepost.engines.llamacpp.context import NUM_OUTPUTS, Context, ContextOptions
from milepost.engines.llamacpp.library import Model
from milepost.engines.llamacpp.one_context import OneContext
from milepost.engines.llamacpp.own_contexts import OwnContexts
from milepost.engines.llamacpp.payload import LlamaKV, LlamaState, Payload, verify
from milepost.engines.llamacpp.places import LlamaSequence, Places
from milepost.engines.llamacpp.rows import SharedRows
from milepost.engines.llamacpp.transfer import Transfer
from milepost.errors import CacheCorruptionError, ConfigurationError, InvalidRequestError

__all__ = ["LlamaDriver"]


class LlamaDriver(Driver):
    """Runs one GGUF model.

    Attributes:
        model: Its weights.
        options: How it computes.
        transfer: Takes payloads out and puts them back.
        cuts: Where a prompt may be cut.
        owner: See ``payload``.

    Args:
        is_strict: Whether each live sequence has a context of its own.
    """

    def __init__(
        self,
        model: Model,
        *,
        options: ContextOptions,
        transfer: Transfer,
        cuts: Cuts,
        is_strict: bool,
        owner: bytes,
    ) -> None:
        self.model = model
        self.family = model.family
        self.options = options
        self.transfer = transfer
        self.cuts = cuts
        self._is_strict = is_strict
        self.owner = owner
        self._places: Places = (
            OwnContexts(self._new_context, transfer=transfer, most_tokens=model.context_length)
            if is_strict
            else OneContext(self._new_context, transfer=transfer)
        )

    @property
    def vocabulary_size(self) -> int:
        """See ``Driver``."""
        return self.model.vocabulary_size

    @property
    def context_length(self) -> int:
        """See ``Driver``."""
        return self.model.context_length

    def start(self, *, num_tokens: int = 1) -> LlamaSequence:
        """See ``Driver``."""
        return self._places.take(num_tokens)[0]

    def advance(self, sequence: LlamaSequence, tokens: torch.Tensor) -> torch.Tensor:
        """See ``Driver``. A longer call than a context takes is cut, with no part too short."""
        for piece in self._pieces(tokens, self.cuts.every):
            logits = self._decode(sequence, piece, num_outputs=1)
        return logits[0]

    def advance_all(self, sequence: LlamaSequence, tokens: torch.Tensor) -> torch.Tensor:
        """See ``Driver``."""
        longest = min(self.cuts.every, NUM_OUTPUTS - 2 * self.cuts.least)
        return torch.cat(
            [
                self._decode(sequence, piece, num_outputs=piece.numel())
                for piece in self._pieces(tokens, longest)
            ]
        )

    def _pieces(self, tokens: torch.Tensor, longest: int) -> list[torch.Tensor]:
        """Cut ``tokens`` into calls of up to ``longest`` and a few; the last is no shorter than may be."""
        number = tokens.numel()
        cuts = list(range(longest, number, longest)) if number > longest + 2 * self.cuts.least else []
        if cuts and number - cuts[-1] < self.cuts.least:
            cuts.pop()
        return list(tokens.tensor_split(cuts))

    def _decode(self, sequence: LlamaSequence, tokens: torch.Tensor, *, num_outputs: int) -> torch.Tensor:
        end = sequence.position + tokens.numel()
        if end > self.context_length:
            raise InvalidRequestError(
                f"{end:,} tokens, and the model's context has {self.context_length:,}; shorten the prompt"
            )
        self._places.make_room(sequence, end)
        logits = sequence.context.decode(
            tokens.numpy(),
            sequences=sequence.number,
            positions=range(sequence.position, end),
            num_outputs=num_outputs,
        )
        sequence.position = end
        return logits

    def rows(self, count: int, *, is_fixed: bool) -> Rows:
        """See ``Driver``. A context each leaves strict numerics one row a call.

        Raises:
            ConfigurationError: several rows are asked for that leave each other's bits alone.
        """
        if is_fixed and count > 1:
            raise ConfigurationError(
                f"decode_rows={count}; llama.cpp's bits hang on how many rows a call has, so strict numerics "
                "have one: leave it out, or open the model with numerics='fast'"
            )
        return OneByOne(self) if self._is_strict else SharedRows(self._places, width=min(count, NUM_OUTPUTS))

    def capture(self, sequence: LlamaSequence) -> LlamaState:
        """See ``Driver``."""
        return self.transfer.state(
            sequence.context, sequence.number, spare=sequence.spare, position=sequence.position
        )

    def kv(self, sequence: LlamaSequence, start: int, end: int) -> LlamaKV:
        """See ``Driver``."""
        piece = self.transfer.kv(sequence.context, sequence.number, start, end, spare=sequence.spare)
        sequence.note(piece)
        return piece

    def restore(
        self, state: LlamaState | None, kv: Sequence[LlamaKV], *, position: int, num_tokens: int
    ) -> LlamaSequence:
        """See ``Driver``."""
        self._check(state, kv, position)
        pieces = list(kv) if self.transfer.memory.has_kv else []
        sequence, num_here = self._places.take(max(num_tokens, position), pieces)
        try:
            self.transfer.put(
                sequence.context, sequence.number, state, pieces[num_here:], spare=sequence.spare
            )
            self.transfer.require(sequence.context, sequence.number, position=position)
        except BaseException:
            sequence.forget()
            sequence.position = 0
            self.close(sequence)
            raise
        for piece in pieces[num_here:]:
            sequence.note(piece)
        sequence.position = position
        return sequence

    def _check(self, state: LlamaState | None, kv: Sequence[LlamaKV], position: int) -> None:
        """What llama.cpp cannot tell: a gap in the KV, and whose it all is."""
        memory = self.transfer.memory
        if memory.has_state:
            verify(state, owner=self.owner)
            if not isinstance(state, LlamaState) or state.position != position:
                raise CacheCorruptionError(f"{state!r:.80} is no state after {position:,} tokens")
        end = 0
        for piece in kv if memory.has_kv else ():
            if not isinstance(piece, LlamaKV) or piece.owner != self.owner or piece.start != end:
                raise CacheCorruptionError(
                    f"{piece!r:.80} is not the KV of this model's tokens from {end:,} on; it was not used"
                )
            end = piece.end
        if memory.has_kv and end != position:
            raise CacheCorruptionError(f"the KV ends at token {end:,}, where {position:,} are due")

    def branch(self, sequence: LlamaSequence) -> LlamaSequence:
        """See ``Driver``."""
        return self.restore(
            self.capture(sequence),
            [self.kv(sequence, 0, sequence.position)],
            position=sequence.position,
            num_tokens=sequence.position,
        )

    def close(self, sequence: LlamaSequence) -> None:
        """See ``Driver``. What it computed stays where it is for a while, for one that begins alike."""
        self._places.give_back(sequence)

    def has_same_bits(self, one: Payload, other: Payload) -> bool:
        """See ``Driver``."""
        return one.has_same_bits(other)

    def pack(self, payload: Payload) -> Packed:
        """See ``Driver``."""
        return packing.pack(payload)

    def unpack(self, packed: Packed) -> Payload:
        """See ``Driver``."""
        return packing.unpack(packed, owner=self.owner)

    def release(self) -> None:
        """Free the contexts that nobody uses; the weights go with the last of the others."""
        self._places.close()

    def _new_context(self, num_cells: int, num_sequences: int) -> Context:
        return Context(self.model, self.options, num_cells=num_cells, num_sequences=num_sequences)

    def __repr__(self) -> str:
        return f"LlamaDriver({self.model.path.name}: {self.family}, {self.transfer.memory})"
