"""One payload, one file: safetensors whose tensors are bytes, and whose metadata say what they are.

The law. A file gives the payload that was written under this key for this model, or ``DamagedError``:

1. safetensors' own header says how long the file must be;
2. the format, the model's identity, the key and the entry are compared with what is asked for;
3. a checksum of what is stored is compared before anything is decompressed;
4. a checksum of the content is compared after.

The checksums tell damage, not a forger: whoever can write into the folder can write a file that passes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import xxhash

from milepost.disk.packed import Bytes, Packed, PackedTensor
from milepost.disk.planes import Plane, Stored, compress, decompress

__all__ = ["FORMAT", "DamagedError", "decode", "encode"]

FORMAT = "milepost-payload-1"
# The element type of bytes that only their engine can tell.
_OPAQUE = "uint8"


class DamagedError(Exception):
    """A file is not what it should be.

    Attributes:
        cause: ``unreadable``, ``format``, ``identity``, ``key``, ``entry``, ``checksum`` or ``content``.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def encode(packed: Packed, *, key: str, identity: str, entry: str, compresses: bool = True) -> bytes:
    """Return the bytes of a file.

    Args:
        packed: The payload.
        key: What it is found by.
        identity: Digest of the model.
        entry: Digest of the rest of its row in the index.
        compresses: Whether tensors are compressed where it pays.

    Complexity: O(bytes), copied once.
    """
    from safetensors.numpy import save

    arrays: dict[str, Bytes] = {}
    layouts: list[Any] = []
    for name, tensor in packed.tensors.items():
        stored = Stored(tensor.data)
        if compresses:
            is_opaque = tensor.dtype == _OPAQUE
            stored = compress(tensor.data, item_bytes=tensor.item_bytes, is_opaque=is_opaque)
        arrays[name] = stored.data
        planes = [[plane.num_bytes, plane.is_compressed] for plane in stored.planes]
        layouts.append([name, tensor.dtype, list(tensor.shape), tensor.item_bytes, stored.width, planes])
    metadata = {
        "format": FORMAT,
        "identity": identity,
        "key": key,
        "entry": entry,
        "tensors": orjson.dumps(layouts).decode(),
        "words": orjson.dumps(dict(packed.words)).decode(),
        "content": _content_checksum(packed),
    }
    metadata["checksum"] = _checksum(metadata, arrays, order=[name for name, *_ in layouts])
    return save({name: np.ascontiguousarray(data) for name, data in arrays.items()}, metadata)


def decode(data: bytes, *, key: str, identity: str, entry: str) -> Packed:
    """Return the payload of a file; arguments as for :func:`encode`.

    Raises:
        DamagedError: it is damaged, or another one.
    """
    from safetensors.numpy import load

    try:
        arrays = load(data)
        metadata: dict[str, str] = orjson.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])[
            "__metadata__"
        ]
    except Exception as error:  # whatever a damaged header makes a parser raise
        raise DamagedError("unreadable", f"it is not a whole safetensors file ({error})") from error
    due = {"format": FORMAT, "identity": identity, "key": key, "entry": entry}
    for name, value in due.items():
        if metadata.get(name) != value:
            raise DamagedError(name, f"its {name} is {str(metadata.get(name))[:80]}, {value[:80]} is due")
    try:
        layouts = orjson.loads(metadata["tensors"])
        order = [name for name, *_ in layouts]
        is_intact = len(arrays) == len(order) and metadata["checksum"] == _checksum(
            metadata, arrays, order=order
        )
    except Exception as error:  # as above
        raise DamagedError("checksum", f"its metadata are damaged ({error})") from error
    if not is_intact:
        raise DamagedError("checksum", "what is stored is not what was written")
    try:
        packed = Packed(
            tensors={name: _tensor(arrays[name], *rest) for name, *rest in layouts},
            words=orjson.loads(metadata["words"]),
        )
        is_same = _content_checksum(packed) == metadata["content"]
    except Exception as error:  # as above
        raise DamagedError("content", f"it cannot be decompressed ({error})") from error
    if not is_same:
        raise DamagedError("content", "its content is not what was packed")
    return packed


def _tensor(
    data: Bytes, dtype: str, shape: list[int], item_bytes: int, width: int, planes: list[tuple[int, bool]]
) -> PackedTensor:
    num_bytes = math.prod(shape) * item_bytes
    stored = [Plane(size, is_compressed) for size, is_compressed in planes]
    expanded = decompress(data, width=width, planes=stored, num_bytes=num_bytes)
    return PackedTensor(dtype, tuple(shape), item_bytes, expanded)


def _checksum(metadata: dict[str, str], arrays: dict[str, Bytes], *, order: Sequence[str]) -> str:
    """Digest all that is stored but the checksum itself."""
    said = sorted((name, value) for name, value in metadata.items() if name != "checksum")
    hasher = xxhash.xxh3_128(orjson.dumps(said))
    for name in order:
        hasher.update(arrays[name].data)
    return hasher.hexdigest()


def _content_checksum(packed: Packed) -> str:
    hasher = xxhash.xxh3_128(orjson.dumps(sorted(packed.words.items())))
    for name, tensor in packed.tensors.items():
        hasher.update(orjson.dumps([name, tensor.dtype, list(tensor.shape), tensor.item_bytes]))
        hasher.update(tensor.data.data)
    return hasher.hexdigest()
