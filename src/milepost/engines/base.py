"""The seam: what one kind of engine does for all that stands above it, and nothing more.

    above   engine, scheduler, generation, prefill, recall, audit, requests, sampling, text: once for all
    here    Driver (one model), LiveSequence (what one request has computed), Rows (a token for each of many)
    below   engines/transformers, engines/llamacpp, and a fake in a screenful beside the tests

A driver knows how its model is run, how a state is taken out and put back, and where a prompt may be cut so
that a resumed run computes what an uninterrupted one would have. It knows nothing of prompts' texts, of which
states are worth keeping, or of who asks. Everything runs in the caller's thread, one call at a time.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from milepost.disk import Packed
from milepost.engines.host_memory import HostMemory, PackedParts

__all__ = [
    "Admission",
    "Driver",
    "Identity",
    "KVPiece",
    "LiveSequence",
    "OneByOne",
    "Probe",
    "RowMaker",
    "Rows",
    "State",
]


class LiveSequence(Protocol):
    """What one request has computed so far, in memory of the engine's own.

    Attributes:
        position: Tokens computed.
    """

    position: int


class State(Protocol):
    """A checkpoint's payload: all that a model keeps of the tokens before ``position``, beside their KV.
    Immutable, and independent of the sequence that it was taken from.
    """

    @property
    def position(self) -> int:
        """Tokens before it."""

    @property
    def num_bytes(self) -> int:
        """Bytes that it keeps alive."""


class KVPiece(Protocol):
    """Keys and values of the tokens ``[start, end)`` of one prompt. Immutable."""

    @property
    def start(self) -> int:
        """Its first token."""

    @property
    def end(self) -> int:
        """The token after its last."""

    @property
    def num_bytes(self) -> int:
        """Bytes that it keeps alive."""


class Rows(ABC):
    """Sequences that answers are made in, a token for each in one call. They join and leave at any step.

    Attributes:
        width: Most sequences of one call.
    """

    width: int

    @abstractmethod
    def advance(self, sequences: Sequence[Any], tokens: Sequence[int]) -> Sequence[torch.Tensor]:
        """Run one token of each sequence, updating them in place.

        Returns:
            Logits after each of them, of shape ``[vocabulary_size]``, in the order given.
        """

    @abstractmethod
    def leave(self, sequence: Any, *, keeps: bool) -> None:
        """Give up the place of ``sequence``. Harmless where it has none.

        Args:
            sequence: One that may have been advanced here.
            keeps: Whether it is used on, as to take its state; else it is lost.
        """


class RowMaker(Protocol):
    """Makes the rows of an engine."""

    def __call__(self, count: int, *, is_fixed: bool) -> Rows:
        """Return room for ``count`` answers at once.

        Args:
            count: Most of them; an engine may take fewer, down to one by one, and then says so.
            is_fixed: A row's bits hang on its own tokens and on ``count`` alone, whatever its company.
        """


class Driver(ABC):
    """Runs one model.

    Attributes:
        family: The model's kind, as its configuration calls it.
    """

    family: str

    @property
    @abstractmethod
    def vocabulary_size(self) -> int:
        """Number of token ids the model knows; valid ids are below it."""

    @property
    @abstractmethod
    def context_length(self) -> int | None:
        """Most tokens of a sequence, or None where the model computes at any length."""

    @property
    def media_tokens(self) -> Mapping[int, str]:
        """Ids that stand for something which is no text, and what for."""
        return {}

    @property
    def device(self) -> torch.device:
        """Where logits lie."""
        return torch.device("cpu")

    @abstractmethod
    def start(self, *, num_tokens: int = 1) -> LiveSequence:
        """Return the sequence of a prompt of ``num_tokens`` that has computed nothing."""

    @abstractmethod
    def advance(self, sequence: Any, tokens: torch.Tensor) -> torch.Tensor:
        """Run ``tokens`` after what ``sequence`` has seen, updating it in place.

        Args:
            sequence: Of this driver.
            tokens: Shape ``[num_tokens]``, int64, on :attr:`device`; at least one.

        Returns:
            Logits of the last token, shape ``[vocabulary_size]``, owned by the caller.
        """

    @abstractmethod
    def advance_all(self, sequence: Any, tokens: torch.Tensor) -> torch.Tensor:
        """As :meth:`advance`, with the logits of all ``tokens``: shape ``[num_tokens, vocabulary_size]``."""

    def advance_through(
        self, sequence: Any, tokens: torch.Tensor, positions: Sequence[int]
    ) -> tuple[torch.Tensor, Sequence[State]]:
        """As :meth:`advance`, with the states at ``positions`` on the way. Only where its cuts say that it
        can (``Cuts.are_states_inside``).

        Args:
            sequence: Of this driver.
            tokens: As for :meth:`advance`.
            positions: Ascending, each after its first token and before its last.

        Returns:
            Logits of the last token, and a state for each position.
        """
        raise NotImplementedError

    @abstractmethod
    def capture(self, sequence: Any) -> State:
        """Return the state of ``sequence``, which goes on unchanged. O(bytes of state)."""

    @abstractmethod
    def kv(self, sequence: Any, start: int, end: int) -> KVPiece:
        """Copy the KV of tokens ``[start, end)`` of ``sequence``. O(bytes of it)."""

    @abstractmethod
    def restore(
        self, state: Any | None, kv: Sequence[Any], *, position: int, num_tokens: int
    ) -> LiveSequence:
        """Return a sequence that has computed ``position`` tokens; what it is made from stays usable.

        Args:
            state: Taken there; None where the model has KV alone.
            kv: Of ``[0, position)``, in order and without a gap.
            position: Where it goes on.
            num_tokens: Length of the prompt that goes on.

        Raises:
            CacheCorruptionError: the pieces do not fit together.
        """

    @abstractmethod
    def branch(self, sequence: Any) -> LiveSequence:
        """Return a copy of ``sequence`` that goes its own way. O(bytes of state and KV)."""

    def close(self, sequence: Any) -> None:  # noqa: B027 (most have nothing to do)
        """Let go of ``sequence``, which is not used again. Harmless when done twice."""

    @abstractmethod
    def has_same_bits(self, one: Any, other: Any) -> bool:
        """Return whether two states, or two pieces of KV, hold the same bits."""

    @abstractmethod
    def pack(self, payload: Any) -> Packed:
        """Return a state or a piece of KV as bytes that another process makes it again from. Callable from
        any thread, while the driver works. O(bytes).

        Raises:
            UnsupportedModelError: it holds what cannot be written down.
        """

    @abstractmethod
    def unpack(self, packed: Packed) -> Any:
        """Return what was packed by a driver of the same model, the same to the bit. O(bytes).

        Raises:
            CacheCorruptionError: it is no payload of such a driver.
        """

    def host_memory(self, capacity_bytes: int) -> HostMemory:
        """Return room in the host's memory for states and KV of this driver's device.

        Args:
            capacity_bytes: What it takes at most.
        """
        del capacity_bytes
        return PackedParts(self.pack, self.unpack)

    def frequency_length(self, num_tokens: int) -> int:
        """Return what a prompt of this length is rotated by: prompts share states where it is equal."""
        del num_tokens
        return 0

    def must_start_over(self, sequence: Any) -> bool:
        """Whether the next token of an answer changes the positions of all before it, so that the sequence
        so far is to be computed anew, as a prompt.
        """
        del sequence
        return False

    def reason_against_loops(self, num_tokens: int) -> str | None:
        """Return why no loop of the model's own library can go on from a prompt of this length, or None."""
        del num_tokens
        return "its engine has no generate that goes on from a given cache; open it with transformers"

    def hand_over(self, sequence: Any, tokens: torch.Tensor) -> Mapping[str, Any]:
        """Return what such a loop goes on from, as the arguments that it takes.

        Args:
            sequence: It goes on unchanged.
            tokens: The whole prompt, of which ``sequence`` has computed less; shape ``[num_tokens]``.
        """
        raise NotImplementedError

    def wait_for_device(self) -> None:  # noqa: B027 (a CPU has done what it was given)
        """Return once the device has done what it was given: it works behind a clock's back."""

    def moment(self) -> Any:
        """Return a mark of now, as the device sees it: after what it was given so far. Waits for nothing."""
        return time.perf_counter()

    def seconds_between(self, start: Any, end: Any) -> float:
        """Return the time between two moments that the device has come to (see :meth:`wait_for_device`)."""
        return float(end - start)

    def release(self) -> None:  # noqa: B027 (most have nothing to do)
        """Take back what was done to the model, or free it. The driver may not be used afterwards."""


class OneByOne(Rows):
    """A sequence a call: exact for every model, and no faster than that."""

    width = 1

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def advance(self, sequences: Sequence[Any], tokens: Sequence[int]) -> Sequence[torch.Tensor]:
        """See :meth:`Rows.advance`."""
        return [
            self._driver.advance(sequence, torch.tensor([token], device=self._driver.device))
            for sequence, token in zip(sequences, tokens, strict=True)
        ]

    def leave(self, sequence: Any, *, keeps: bool) -> None:
        """A sequence has no place here, and stays what it is."""


class Identity(Protocol):
    """Which model this is, as it computes now (see ``engines/transformers/watch``)."""

    @property
    def content(self) -> int:
        """Number of the weights; goes up and never comes back."""

    @property
    def digest(self) -> bytes:
        """Of the content and of all else that an answer hangs on."""

    def tenant(self, name: str) -> str:
        """Return who a request of tenant ``name`` is to the cache."""

    def has_content_of(self, tenant: str) -> bool:
        """Return whether ``tenant``, as :meth:`tenant` gave it, is of this content."""


class Probe(Protocol):
    """What was found when the model was opened."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the model gives the same bits twice."""


class Admission(Protocol):
    """Looks, before a request is let through, which model this is by now."""

    def require_weights(self) -> None:
        """Raise ``UnsupportedModelError`` where there are no numbers to compute with any more."""

    def identify(self) -> Any:
        """Return the model's :class:`Identity` now."""

    def require(self, identity: Any, *, closely: bool = False) -> None:
        """Raise ``ModelChangedError`` unless the model is still ``identity``."""

    def distrust(self) -> None:
        """Say that others had a turn, who may have changed the model."""

    def can_store(self, identity: Any) -> bool:
        """Return whether states of ``identity`` have the sizes that its caches were made for."""

    def is_as_opened(self, identity: Any) -> bool:
        """Return whether ``identity`` is the model's when it was opened: then alone it has one that outlives
        the process (``ServedModel.persistent_facts``).
        """

    def invalidate(self) -> None:
        """Take the weights for others, whatever they look like."""
