"""States and pieces of KV as opaque bytes that say whose they are.

llama.cpp's own bytes name no model and have no checksum: those of another model of the same shape are taken
as they come, and those of another shape can end the process. So every payload carries an owner, a digest of
all that makes bytes of two contexts interchangeable, and a checksum; both are checked before llama.cpp sees
anything, and nothing else is ever handed to it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xxhash

from milepost.engines.llamacpp.context import Bytes
from milepost.errors import CacheCorruptionError

__all__ = ["LlamaKV", "LlamaState", "Payload", "checksum", "verify"]

_SIGN = 0x80


def checksum(data: Bytes) -> bytes:
    """Return the digest of what a payload holds. O(bytes), many a nanosecond."""
    return xxhash.xxh3_64_digest(data.data)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Payload:
    """Bytes of llama.cpp's, and whose they are.

    Attributes:
        data: Shape ``[num_bytes]``; read-only, and empty where the model keeps nothing of the kind.
        owner: Digest of the model, the options of its contexts and the library.
        checksum: Of ``data``.
    """

    kind: ClassVar[str] = "payload"

    data: Bytes
    owner: bytes
    checksum: bytes

    @property
    def num_bytes(self) -> int:
        """Bytes that it keeps alive."""
        return int(self.data.nbytes)

    def has_same_bits(self, other: "Payload") -> bool:
        """Return whether both hold the same. O(bytes)."""
        return np.array_equal(self.data, other.data)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LlamaState(Payload):
    """The recurrent state after ``position`` tokens."""

    kind: ClassVar[str] = "state"

    position: int

    def has_same_bits(self, other: "Payload") -> bool:
        """Return whether both hold the same, but for the sign of a zero. O(bytes).

        llama.cpp empties a state by multiplying what it held before by 0: until a short convolution has seen
        as many tokens as it is wide, the rest of its state is zeros of either sign.
        """
        one, another = self.data, other.data
        if one.shape != another.shape:
            return False
        places = np.flatnonzero(one != another)
        if not places.size:
            return True
        # The sign is the last byte of a float32, and the others are 0 in both.
        is_sign = (one[places] | another[places] == _SIGN) & (one[places] & another[places] == 0)
        rest = places[:, None] - np.arange(1, 4)
        is_zero = (rest >= 0).all() and not one[rest].any()
        return bool(is_sign.all() and is_zero)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LlamaKV(Payload):
    """Keys and values of the tokens ``[start, end)``."""

    kind: ClassVar[str] = "piece of KV"

    start: int
    end: int


def verify(payload: object, *, owner: bytes) -> None:
    """Check that ``payload`` is one of ours and as it was made.

    Raises:
        CacheCorruptionError: it is not; llama.cpp has not seen it.
    """
    if not isinstance(payload, Payload):
        raise CacheCorruptionError(f"{payload!r:.80} is no payload of llama.cpp's; it was not used")
    if payload.owner != owner:
        raise CacheCorruptionError(
            f"a {payload.kind} is of another model, another number format or another llama.cpp "
            f"({payload.owner.hex()[:12]}, not {owner.hex()[:12]}); it was not used"
        )
    data = payload.data
    is_whole = isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 1
    if not is_whole or not data.flags.c_contiguous or checksum(data) != payload.checksum:
        raise CacheCorruptionError(
            f"a {payload.kind} is damaged: its bytes are not those that were saved; it was not used"
        )
