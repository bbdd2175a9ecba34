"""Lossless compression of numbers: byte planes, each as it is or through zstd.

The bytes of an element differ in kind. A float's mantissa is all but random; sign and exponent take few
values. So the first, second, ... bytes of all elements are put side by side, one plane each, and a plane is
compressed where that saves enough to be worth the reading, else stored as it is.

    fp32  3 planes of noise, 1 of signs and exponents      bf16  1 of noise, 1 of signs and exponents
    q8_0  34 planes: a block's scale, 2 bytes, and 32 small integers

To rotate floats by a bit first, so that no exponent is torn over two planes, saves no more (1.189 for
1.195 in fp32): the sign is as random in one place as in the other.

What comes back is what went in, or an error: the file around it has a checksum of the content.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import zstandard

from milepost.disk.packed import Bytes

__all__ = ["Plane", "Stored", "compress", "decompress"]

# Fast: a higher level finds nothing more in exponents.
_LEVEL = 1
# A plane is worth decompressing where at least this share of it is saved.
_LEAST_SAVED = 0.05
# Under this there is nothing to win.
_LEAST_BYTES = 256
# Bytes whose elements are unknown are tried, on a sample, as bytes, halves, floats and blocks of q8_0.
_UNKNOWN_WIDTHS = (1, 2, 4, 34)
_SAMPLE_ELEMENTS = 1 << 11
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
        width: Number of planes; 0 where the bytes are stored as they are.
        planes: In order, and after them what is left of a last element, where something is.
    """

    data: Bytes
    width: int = 0
    planes: tuple[Plane, ...] = ()


def compress(data: Bytes, *, item_bytes: int, is_opaque: bool = False) -> Stored:
    """Return ``data`` as it is best stored. O(bytes).

    Args:
        data: Shape ``[num_bytes]``.
        item_bytes: Bytes of an element.
        is_opaque: Whether it is unknown what the bytes are of.
    """
    if data.size < _LEAST_BYTES or item_bytes > _MOST_WIDTH:
        return Stored(data)
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    width = _best_width(data, compressor) if is_opaque else item_bytes
    pieces = [_squeezed(plane, compressor) for plane in _split(data, width)]
    if not any(is_compressed for _, is_compressed in pieces):
        return Stored(data)
    rest = data[data.size // width * width :]
    if rest.size:
        pieces.append((rest, False))
    planes = tuple(Plane(int(piece.size), is_compressed) for piece, is_compressed in pieces)
    return Stored(np.concatenate([piece for piece, _ in pieces]), width, planes)


def decompress(data: Bytes, *, width: int, planes: Sequence[Plane], num_bytes: int) -> Bytes:
    """Return the ``num_bytes`` that were stored so; ``data`` itself where nothing was compressed.

    Raises:
        ValueError: the planes are not those of so many bytes.
        zstandard.ZstdError: one is damaged.
    """
    if width == 0:
        if planes or data.size != num_bytes:
            raise ValueError(f"{data.size} bytes are stored, {num_bytes} are due")
        return data
    num_elements, rest = divmod(num_bytes, width) if 0 < width <= _MOST_WIDTH else (0, 0)
    is_whole = sum(plane.num_bytes for plane in planes) == data.size and len(planes) == width + bool(rest)
    if not num_elements or not is_whole:
        raise ValueError(f"{len(planes)} planes of {data.size} bytes do not make {num_bytes} bytes")
    whole = np.empty(num_bytes, np.uint8)
    elements = whole[: num_elements * width].reshape(num_elements, width)
    decompressor = zstandard.ZstdDecompressor()
    start = 0
    for index, plane in enumerate(planes):
        piece = data[start : start + plane.num_bytes]
        target = elements[:, index] if index < width else whole[num_elements * width :]
        target[:] = _expanded(piece, target.size, decompressor) if plane.is_compressed else piece
        start += plane.num_bytes
    return whole


def _split(data: Bytes, width: int) -> Bytes:
    """Return the planes of the whole elements in ``data``, shape ``[width, elements]``."""
    return np.ascontiguousarray(data[: data.size // width * width].reshape(-1, width).T)


def _squeezed(plane: Bytes, compressor: zstandard.ZstdCompressor) -> tuple[Bytes, bool]:
    """Return a plane as it is best stored, and whether that is compressed. Noise takes next to no time."""
    small = np.frombuffer(compressor.compress(plane.data), np.uint8)
    is_smaller = small.size < (1 - _LEAST_SAVED) * plane.size
    return (small, True) if is_smaller else (plane, False)


def _expanded(stored: Bytes, num_bytes: int, decompressor: zstandard.ZstdDecompressor) -> Bytes:
    # A damaged frame may ask for any amount of memory.
    if zstandard.frame_content_size(stored.data) != num_bytes:
        raise ValueError(f"a plane does not say that it holds {num_bytes} bytes")
    return np.frombuffer(decompressor.decompress(stored.data), np.uint8)


def _best_width(data: Bytes, compressor: zstandard.ZstdCompressor) -> int:
    """Return under which width a sample from the middle of ``data`` takes least."""
    shares: dict[float, int] = {}
    for width in _UNKNOWN_WIDTHS:
        num_bytes = min(data.size // width, _SAMPLE_ELEMENTS) * width
        # At an element's start, counted from the first byte.
        start = (data.size - num_bytes) // 2 // width * width
        planes = _split(data[start : start + num_bytes], width)
        taken = sum(piece.size for piece, _ in (_squeezed(plane, compressor) for plane in planes))
        shares.setdefault(taken / num_bytes, width)
    return shares[min(shares)]
