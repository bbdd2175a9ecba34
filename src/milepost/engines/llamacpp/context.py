"""One ``llama_context``: the memory of some sequences, and calls that leave nothing unchecked.

llama.cpp answers a refused call with a number, goes on with what it had before where that is not looked at,
and ends the process where a call breaks a rule of its own. So every code is checked here, and what it would
assert is checked before.
"""

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from milepost.engines.llamacpp.kv_types import KVTypes
from milepost.engines.llamacpp.library import Model
from milepost.errors import EngineError
from milepost.tokens import TokenArray

__all__ = ["NUM_OUTPUTS", "Bytes", "Context", "ContextOptions", "OutOfCellsError"]

Bytes = npt.NDArray[np.uint8]

# Tokens of one call whose logits are given out at most: each takes a row of the whole vocabulary.
NUM_OUTPUTS = 32
# llama.cpp rounds the number of cells up to it.
_CELL_STEP = 256
_WHOLE, _STATE_ALONE = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextOptions:
    """What all contexts over one model have in common.

    Attributes:
        most_tokens: Of one call.
        kv_types: Number formats of cached keys and values.
        num_threads: That compute.
    """

    most_tokens: int
    kv_types: KVTypes = field(default_factory=KVTypes)
    num_threads: int = 1


class OutOfCellsError(EngineError):
    """The context has no cells left for more tokens; nothing was changed."""


class Context:
    """See the module.

    Attributes:
        num_cells: Tokens that all sequences together can hold.
        num_sequences: Sequences are numbered below it.

    Args:
        model: Its weights.
        options: How it computes.
        num_cells: Asked for; rounded up to a multiple of 256, and to what a whole call takes.
        num_sequences: At most 256. Each has room for a recurrent state from the beginning.

    Raises:
        EngineError: llama.cpp makes no context of it.
    """

    def __init__(self, model: Model, options: ContextOptions, *, num_cells: int, num_sequences: int) -> None:
        self._library = llama = model.library
        num_cells = max(num_cells, options.most_tokens, model.least_context)
        self.num_cells = -(-num_cells // _CELL_STEP) * _CELL_STEP
        self.num_sequences = num_sequences
        self._options = options
        self._handle = llama.llama_init_from_model(model.handle, self._parameters(llama))
        if not self._handle:
            raise EngineError(
                f"llama.cpp makes no context of {self.num_cells:,} cells for {num_sequences} sequences of "
                f"{model.path}: most often for want of memory (its log has the reason); serve shorter "
                "prompts, or fewer requests at once"
            )
        # A context outlives no weights: it holds the model.
        self._model = model
        self._free = weakref.finalize(self, _free, llama, self._handle, model)
        self._memory = llama.llama_get_memory(self._handle)
        self._vocabulary_size = model.vocabulary_size
        self._batch = _Batch(llama, min(options.most_tokens, llama.llama_n_batch(self._handle)))

    def _parameters(self, llama: Any) -> Any:
        options, kv_types = self._options, self._options.kv_types
        found = llama.llama_context_default_params()
        found.n_ctx = self.num_cells
        found.n_batch = found.n_ubatch = options.most_tokens
        found.n_seq_max = self.num_sequences
        found.n_rs_seq = 0
        found.n_outputs_max = found.n_outputs_max_per_seq = max(NUM_OUTPUTS, self.num_sequences)
        found.n_threads = found.n_threads_batch = options.num_threads
        # The default looks at the device.
        found.flash_attn_type = (
            llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if kv_types.wants_flash_attention
            else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        found.type_k = getattr(llama, f"GGML_TYPE_{kv_types.keys.upper()}")
        found.type_v = getattr(llama, f"GGML_TYPE_{kv_types.values.upper()}")
        found.kv_unified = True
        found.embeddings = False
        found.no_perf = True
        return found

    def decode(
        self,
        tokens: TokenArray | Sequence[int],
        *,
        sequences: int | Sequence[int],
        positions: Sequence[int] | range,
        num_outputs: int = 1,
    ) -> torch.Tensor:
        """Run tokens and return the logits of the last ``num_outputs`` of them.

        Args:
            tokens: Shape ``[num_tokens]``.
            sequences: Which each of them belongs to.
            positions: Where each of them stands.
            num_outputs: From 1 to the number of tokens.

        Returns:
            Shape ``[num_outputs, vocabulary_size]``, float32, owned by the caller.

        Raises:
            OutOfCellsError: there is no room; nothing was changed.
            EngineError: llama.cpp refuses the call, or failed in it.
        """
        num_tokens = len(tokens)
        if not 0 < num_tokens <= self._batch.most_tokens or num_outputs > max(
            NUM_OUTPUTS, self.num_sequences
        ):
            raise EngineError(
                f"a call of {num_tokens} tokens and {num_outputs} outputs; this context takes 1 to "
                f"{self._batch.most_tokens} and up to {max(NUM_OUTPUTS, self.num_sequences)}"
            )
        batch = self._batch.fill(tokens, sequences, positions, num_outputs)
        code = self._library.llama_decode(self._handle, batch)
        if code == 1:
            raise OutOfCellsError(f"no room for {num_tokens} tokens more in {self.num_cells:,} cells")
        if code != 0:
            raise EngineError(
                f"llama_decode refuses {num_tokens} tokens from position {positions[0]} of sequence "
                f"{sequences if isinstance(sequences, int) else sequences[0]} (code {code}); its log has the "
                "reason"
            )
        return self._logits(num_tokens, num_outputs)

    def _logits(self, num_tokens: int, num_outputs: int) -> torch.Tensor:
        logits = torch.empty(num_outputs, self._vocabulary_size)
        row_bytes = self._vocabulary_size * 4
        for row in range(num_outputs):
            found = self._library.llama_get_logits_ith(self._handle, num_tokens - num_outputs + row)
            if not found:
                raise EngineError(f"llama.cpp has no logits for token {row - num_outputs} of the call")
            # The buffer is overwritten by the next call.
            ctypes.memmove(logits[row].data_ptr(), found, row_bytes)
        return logits

    def save(self, sequence: int, *, state_alone: bool = False) -> Bytes:
        """Copy out what is kept of a sequence: its KV and its state, or the state alone.

        Raises:
            EngineError: llama.cpp wrote another number of bytes than it said it would.
        """
        flags = _STATE_ALONE if state_alone else _WHOLE
        num_bytes = self._library.llama_state_seq_get_size_ext(self._handle, sequence, flags)
        found: Bytes = np.empty(num_bytes, np.uint8)
        written = self._library.llama_state_seq_get_data_ext(
            self._handle, _pointer(found), num_bytes, sequence, flags
        )
        if written != num_bytes or num_bytes == 0:
            raise EngineError(f"llama.cpp wrote {written:,} bytes of a sequence's {num_bytes:,}")
        found.flags.writeable = False
        return found

    def load(self, sequence: int, saved: Bytes, *, state_alone: bool = False) -> None:
        """Put back what :meth:`save` gave, which took it from a context of the same model and options.

        Raises:
            EngineError: llama.cpp did not take it, or not all of it. The sequence is empty then.
        """
        flags = _STATE_ALONE if state_alone else _WHOLE
        taken = self._library.llama_state_seq_set_data_ext(
            self._handle, _pointer(saved), saved.size, sequence, flags
        )
        if taken != saved.size:
            # What it took before it failed is still there.
            self.remove(sequence)
            raise EngineError(f"llama.cpp took {taken:,} of a payload of {saved.size:,} bytes")

    def copy(self, source: int, target: int, *, start: int = -1, end: int = -1) -> None:
        """Have ``target`` share the KV of ``[start, end)`` with ``source``, and its state as it is now."""
        self._require(source, target)
        self._library.llama_memory_seq_cp(self._memory, source, target, start, end)

    def remove(self, sequence: int, *, start: int = -1) -> None:
        """Remove a sequence, or its KV from ``start`` on.

        Raises:
            EngineError: a state cannot be taken back that far: put the right one in first.
        """
        self._require(sequence)
        if not self._library.llama_memory_seq_rm(self._memory, sequence, start, -1):
            raise EngineError(f"sequence {sequence} cannot be taken back to position {start}")

    def span(self, sequence: int) -> tuple[int, int]:
        """Return the first and the last position that it holds; -1 and -1 where it is empty. Of a model with
        a state, the state's position is both.
        """
        llama = self._library
        return (
            int(llama.llama_memory_seq_pos_min(self._memory, sequence)),
            int(llama.llama_memory_seq_pos_max(self._memory, sequence)),
        )

    def close(self) -> None:
        """Free it. Harmless when done twice."""
        self._free()

    def _require(self, *sequences: int) -> None:
        for sequence in sequences:
            if not 0 <= sequence < self.num_sequences:
                raise EngineError(f"sequence {sequence}; this context has 0 to {self.num_sequences - 1}")


class _Batch:
    """A ``llama_batch`` over arrays of our own, made once."""

    def __init__(self, llama: Any, most_tokens: int) -> None:
        self.most_tokens = most_tokens
        self._tokens = np.zeros(most_tokens, np.int32)
        self._positions = np.zeros(most_tokens, np.int32)
        self._sequences = np.zeros(most_tokens, np.int32)
        self._sequence_counts = np.ones(most_tokens, np.int32)
        self._outputs = np.zeros(most_tokens, np.int8)
        # Of each token, the address of the list of its sequences, which has one entry.
        first = self._sequences.ctypes.data
        self._addresses = np.arange(first, first + 4 * most_tokens, 4, dtype=np.uintp)
        self._batch = batch = llama.llama_batch()
        for name, values in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._sequence_counts),
            ("seq_id", self._addresses),
            ("logits", self._outputs),
        ):
            kind = dict(llama.llama_batch._fields_)[name]
            setattr(batch, name, ctypes.cast(values.ctypes.data, kind))

    def fill(
        self,
        tokens: TokenArray | Sequence[int],
        sequences: int | Sequence[int],
        positions: Sequence[int] | range,
        num_outputs: int,
    ) -> Any:
        number = len(tokens)
        self._tokens[:number] = tokens
        self._sequences[:number] = sequences
        self._positions[:number] = positions
        self._outputs[: number - num_outputs] = 0
        self._outputs[number - num_outputs : number] = 1
        self._batch.n_tokens = number
        return self._batch


def _pointer(values: Bytes) -> Any:
    return ctypes.cast(values.ctypes.data, ctypes.POINTER(ctypes.c_uint8))


def _free(llama: Any, handle: Any, model: Model) -> None:
    """Free a context; the model is named so that it lives until then."""
    del model
    llama.llama_free(handle)
