"""What is stored of a prompt, with its digest, as one packed value and back."""

from milepost.disk import Packed
from milepost.engines.base import Driver
from milepost.engines.payloads import StoredKV, StoredState
from milepost.errors import CacheCorruptionError

__all__ = ["PayloadCodec"]

# What a payload is made of: names of tensors and words begin with one of these.
_STATE, _TAIL, _PIECE = "state.", "tail.", "piece."
_DIGEST = "digest"


class PayloadCodec:
    """Packs what an engine stores, and unpacks it for an engine over the same model.

    Args:
        driver: Of the model.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def pack(self, payload: StoredState | StoredKV) -> Packed:
        """Return ``payload`` as bytes. Callable from any thread. O(bytes).

        Raises:
            UnsupportedModelError: it holds what cannot be written down.
        """
        if isinstance(payload, StoredKV):
            parts = {_PIECE: self._driver.pack(payload.piece)}
        else:
            parts = {_STATE: self._driver.pack(payload.state)}
            if payload.tail is not None:
                parts[_TAIL] = self._driver.pack(payload.tail)
        return Packed(
            tensors={
                part + name: tensor
                for part, packed in parts.items()
                for name, tensor in packed.tensors.items()
            },
            words={_DIGEST: payload.digest.hex()}
            | {part + name: word for part, packed in parts.items() for name, word in packed.words.items()},
        )

    def unpack(self, packed: Packed) -> StoredState | StoredKV:
        """Return the payload. O(bytes).

        Raises:
            CacheCorruptionError: it is none of this model's.
        """
        try:
            digest = bytes.fromhex(packed.words[_DIGEST])
        except (LookupError, ValueError) as error:
            raise CacheCorruptionError(
                f"a packed payload has no digest ({error}); it was not used"
            ) from error
        if (piece := _part(packed, _PIECE)) is not None:
            return StoredKV(piece=self._driver.unpack(piece), digest=digest)
        if (state := _part(packed, _STATE)) is None:
            raise CacheCorruptionError("it is neither a state nor a piece of KV; it was not used")
        tail = _part(packed, _TAIL)
        return StoredState(
            state=self._driver.unpack(state),
            tail=None if tail is None else self._driver.unpack(tail),
            digest=digest,
        )


def _part(packed: Packed, part: str) -> Packed | None:
    """Return what of ``packed`` begins with ``part``, None where nothing does."""
    words = {name.removeprefix(part): word for name, word in packed.words.items() if name.startswith(part)}
    tensors = {
        name.removeprefix(part): tensor for name, tensor in packed.tensors.items() if name.startswith(part)
    }
    return Packed(tensors, words) if words else None
