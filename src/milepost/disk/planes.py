"""Lossless compression of numbers: byte planes, each as it is or through zstd.

The bytes of an element differ in kind. Those of a float's mantissa are all but random; sign and exponent
share one byte, or two, that takes few values. So the first, second, ... bytes of all elements are put side
by side, one plane each, and a plane is compressed where a sample of it says that this pays; else it is
stored as it is.

    fp32  3 planes of noise, 1 of sign and exponent     bf16  1 of noise, 1 of sign and exponent
    q8_0  34 planes: a block's scale, 2 bytes, and 32 small integers

What comes back is what went in, or an error: the file around it has a checksum of the content.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import zstandard

from milepost.disk.packed import Bytes

__all__ = ["Plane", "Stored", "compress", "decompress"]

# Fast: a higher level finds nothing more in an exponent's plane.
_LEVEL = 1
# A plane is worth decompressing where at least this share of it is saved.
_LEAST_SAVED = 0.05
_SAMPLE_BYTES = 1 << 14
# Under this there is nothing to win.
_LEAST_BYTES = 256
# Bytes whose elements are unknown are tried as each of these: bytes, halves, floats and blocks of q8_0.
_UNKNOWN_WIDTHS = (1, 2, 4, 34)
_MOST_WIDTH = 64


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane as it is stored.

    Attributes:
        num_bytes: Stored bytes.
        is_compressed: Whether they are zstd's.
    """

    num_bytes: int
    is_compressed: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor's bytes as they are stored.

    Attributes:
        data: Shape ``[num_bytes]``.
        planes: In order; none where the bytes are stored as they are.
    """

    data: Bytes
    planes: tuple[Plane, ...]


def compress(data: Bytes, *, item_bytes: int) -> Stored:
    """Return ``data`` as it is best stored. O(bytes).

    Args:
        data: Shape ``[num_bytes]``.
        item_bytes: Bytes of an element; 1 where it is not known what the bytes are.
    """
    if data.size < _LEAST_BYTES:
        return Stored(data, ())
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    width = _best_width(data, (item_bytes,) if item_bytes > 1 else _UNKNOWN_WIDTHS, compressor)
    if width is None:
        return Stored(data, ())
    pieces: list[Bytes] = []
    planes: list[Plane] = []
    for plane in _split(data, width):
        piece = plane
        if _pays(plane, compressor):
            piece = np.frombuffer(compressor.compress(plane.data), np.uint8)
        is_compressed = piece.size < plane.size
        pieces.append(piece if is_compressed else plane)
        planes.append(Plane(int(pieces[-1].size), is_compressed))
    if not any(plane.is_compressed for plane in planes):
        return Stored(data, ())
    return Stored(np.concatenate(pieces), tuple(planes))


def decompress(data: Bytes, planes: Sequence[Plane], *, num_bytes: int) -> Bytes:
    """Return the ``num_bytes`` that were stored as ``planes``; read-only where nothing was compressed.

    Raises:
        ValueError: the planes are not those of so many bytes.
        zstandard.ZstdError: one is damaged.
    """
    if not planes:
        if data.size != num_bytes:
            raise ValueError(f"{data.size} bytes are stored, {num_bytes} are due")
        return data
    width = len(planes)
    if width > _MOST_WIDTH or sum(plane.num_bytes for plane in planes) != data.size:
        raise ValueError(f"{width} planes do not make the {data.size} bytes stored")
    whole = np.empty(num_bytes, np.uint8)
    decompressor = zstandard.ZstdDecompressor()
    start = 0
    for index, plane in enumerate(planes):
        stored = data[start : start + plane.num_bytes]
        target = whole[index::width]
        target[:] = _expand(stored, target.size, decompressor) if plane.is_compressed else stored
        start += plane.num_bytes
    return whole


def _expand(stored: Bytes, num_bytes: int, decompressor: zstandard.ZstdDecompressor) -> Bytes:
    # A damaged frame may ask for any amount of memory.
    if zstandard.frame_content_size(stored.data) != num_bytes:
        raise ValueError(f"a plane does not say that it holds {num_bytes} bytes")
    return np.frombuffer(decompressor.decompress(stored.data), np.uint8)


def _split(data: Bytes, width: int) -> list[Bytes]:
    return [np.ascontiguousarray(data[index::width]) for index in range(width)]


def _best_width(data: Bytes, widths: Sequence[int], compressor: zstandard.ZstdCompressor) -> int | None:
    """Return under which width a sample from the middle of ``data`` takes least; None where none pays."""
    best: tuple[float, int] | None = None
    for width in widths:
        if width > _MOST_WIDTH:
            continue
        num_bytes = min(data.size, _SAMPLE_BYTES * width) // width * width
        # At an element's start, wherever that is counted from.
        start = (data.size - num_bytes) // 2 // width * width
        sample = data[start : start + num_bytes]
        sizes = [(plane.size, len(compressor.compress(plane.data))) for plane in _split(sample, width)]
        taken = sum(small if small < (1 - _LEAST_SAVED) * size else size for size, small in sizes)
        if sample.size and taken < sample.size and (best is None or taken / sample.size < best[0]):
            best = taken / sample.size, width
    return None if best is None else best[1]


def _pays(plane: Bytes, compressor: zstandard.ZstdCompressor) -> bool:
    if plane.size <= _SAMPLE_BYTES:
        return plane.size > 0
    start = (plane.size - _SAMPLE_BYTES) // 2
    sample = plane[start : start + _SAMPLE_BYTES]
    return len(compressor.compress(sample.data)) < (1 - _LEAST_SAVED) * sample.size
