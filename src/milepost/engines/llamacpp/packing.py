"""States and pieces of KV of llama.cpp as bytes that another process may use, and back."""

import numpy as np

from milepost.disk import Packed, PackedTensor
from milepost.engines.llamacpp.payload import LlamaKV, LlamaState, Payload, verify
from milepost.errors import CacheCorruptionError, UnsupportedModelError

__all__ = ["pack", "unpack"]


def pack(payload: Payload) -> Packed:
    """Return ``payload`` as bytes, which are its own.

    Raises:
        UnsupportedModelError: it is no payload of llama.cpp's.
    """
    if isinstance(payload, LlamaState):
        words = {"kind": "state", "position": str(payload.position)}
    elif isinstance(payload, LlamaKV):
        words = {"kind": "kv", "start": str(payload.start), "end": str(payload.end)}
    else:
        raise UnsupportedModelError(f"{payload!r:.80} is no payload of llama.cpp's")
    data = PackedTensor("uint8", payload.data.shape, 1, payload.data)
    return Packed({"data": data}, words | {"checksum": payload.checksum.hex()})


def unpack(packed: Packed, *, owner: bytes) -> Payload:
    """Return what was packed.

    Args:
        packed: As :func:`pack` gave it.
        owner: The model's that it was read for (see ``payload``).

    Raises:
        CacheCorruptionError: it is no payload of llama.cpp's, or a damaged one.
    """
    try:
        words, data = packed.words, np.ascontiguousarray(packed.tensors["data"].data)
        data.flags.writeable = False
        made: Payload
        if words["kind"] == "state":
            made = LlamaState(data, owner, bytes.fromhex(words["checksum"]), int(words["position"]))
        else:
            span = int(words["start"]), int(words["end"])
            made = LlamaKV(data, owner, bytes.fromhex(words["checksum"]), *span)
    except (LookupError, ValueError) as error:
        raise CacheCorruptionError(f"it is no payload of llama.cpp's ({error}); it was not used") from error
    verify(made, owner=owner)
    return made
