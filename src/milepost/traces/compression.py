"""Files as streams of bytes: plain, gzip or Zstandard, told apart by how they begin.

Names lie (``trace.jsonl`` that is gzip) and a pipe has none, so the first bytes decide; no JSON begins like
a compressed file. A compressed file that ends inside a frame raises ``EOFError``: a log of which the tail is
missing must never pass for a shorter log.
"""

import gzip
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard

__all__ = ["STANDARD_INPUT", "open_bytes", "open_for_writing", "shown_name"]

STANDARD_INPUT = "-"

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Parallel compressors begin a file with a frame of their own that is to be skipped: 0x184D2A50 to 5F.
_ZSTD_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"
# Trace files of the field are compressed with windows of up to 2 GiB.
_MAX_WINDOW_BYTES = 2**31
_BUFFER_BYTES = 1 << 18
_LEAST_INPUT_BYTES = 64


def shown_name(path: str) -> str:
    """Return what people call the file at ``path``.

    >>> shown_name("-"), shown_name("log.jsonl")
    ('standard input', 'log.jsonl')
    """
    return "standard input" if path == STANDARD_INPUT else path


@contextmanager
def open_bytes(path: str) -> Iterator[IO[bytes]]:
    """Open ``path`` (``-``: standard input) as decompressed bytes in constant memory."""
    if path == STANDARD_INPUT:
        yield _decompressed(sys.stdin.buffer)
        return
    with Path(path).open("rb", buffering=_BUFFER_BYTES) as raw:
        yield _decompressed(raw)


@contextmanager
def open_for_writing(path: Path) -> Iterator[IO[bytes]]:
    """Open ``path`` to be written, compressed as its suffix says (``.gz``, ``.zst``), always the same way."""
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # A time and a name in the header would make equal traces differ.
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                yield cast(IO[bytes], packed)
        elif path.suffix == ".zst":
            with zstandard.ZstdCompressor(level=10).stream_writer(raw, closefd=False) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield raw


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(Any, raw), _BUFFER_BYTES)
    magic = buffered.peek(4)[:4]
    if magic.startswith(_GZIP_MAGIC):
        return cast(IO[bytes], gzip.GzipFile(fileobj=buffered))
    if magic == _ZSTD_MAGIC or (magic[1:] == _ZSTD_SKIPPABLE_MAGIC and magic[0] >> 4 == 5):
        return io.BufferedReader(_ZstdReader(buffered), _BUFFER_BYTES)
    return buffered


class _ZstdReader(io.RawIOBase):
    """All frames of a Zstandard file, one after the other.

    The library's own stream reader ends quietly where a file was cut off; its push interface says whether
    the frame ended. A push returns all that its input holds, and a byte can hold a hundred kilobytes: the
    input is taken in pieces that grow only while their output stays small.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._context = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        self._frame: Any = None
        self._input = b""
        self._input_bytes = _LEAST_INPUT_BYTES
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._push():
                return 0
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def _push(self) -> bool:
        """Decompress one more piece; return whether there was one."""
        piece = self._input or self._source.read(self._input_bytes)
        self._input = b""
        if not piece:
            if self._frame is not None:
                raise EOFError("the compressed data end inside a frame")
            return False
        if self._frame is None:
            self._frame = self._context.decompressobj()
        output = self._frame.decompress(piece)
        if self._frame.eof:
            self._input = self._frame.unused_data
            self._frame = None
        if len(output) > _BUFFER_BYTES:
            self._input_bytes = max(_LEAST_INPUT_BYTES, self._input_bytes // 2)
        elif len(output) < _BUFFER_BYTES // 4:
            self._input_bytes = min(_BUFFER_BYTES, self._input_bytes * 2)
        self._output = memoryview(output)
        return True
