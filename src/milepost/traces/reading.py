"""From a path to a trace: lines are read one at a time, and each becomes a request or an error.

The formats are listed in ``open_trace``. A line costs its parsing; memory holds one line, one request and
nothing that grows with the trace.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import zstandard

from milepost.errors import ConfigurationError, InvalidRequestError, TraceFormatError
from milepost.traces.compression import STANDARD_INPUT, open_bytes
from milepost.traces.formats import LineFormat, choose_format
from milepost.traces.hash_blocks import HashBlocks
from milepost.traces.keys import FractionalIdError
from milepost.traces.request import TraceRequest
from milepost.traces.request_log import RequestLog
from milepost.traces.synthetic import SYNTHETIC_PREFIX, open_synthetic
from milepost.traces.token_ids import TokenIds
from milepost.traces.trace import Tally, Trace

__all__ = ["open_trace"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SUFFIXES = (".gz", ".zst", ".jsonl", ".ndjson", ".json")
_SKIP_REMEDY = "mend the line, or skip such lines (--skip-bad-lines, skip_bad_lines=True)"


def open_trace(
    path: str | Path, *, tokenizer: str | Path | None = None, skip_bad_lines: bool = False
) -> Trace:
    """Open a request log, or make one up, as an iterable of requests.

    Args:
        path: A file of JSON lines, plain, gzip or Zstandard; ``-`` for standard input, which can be iterated
            once; or ``synthetic:NAME,option=value,...`` (see ``milepost.traces.synthetic``). A line is

            * a prompt as block hashes (``hash_ids``): Mooncake, Qwen-Bailian, or ours;
            * a prompt as token ids: a list, or ``tokens`` and its other usual names;
            * a request body of an OpenAI-style server (``messages``, ``prompt`` or ``text``), alone or inside
              a log's envelope (``request`` or ``body``), as also in batch files.

            All lines of a trace have one format and one block size. Times may be missing and may go
            backwards, and request ids are labels that may repeat: the order of the lines is what counts.
        tokenizer: For lines of text: a Hugging Face name or folder, or a ``tokenizer.json``.
        skip_bad_lines: Count malformed lines and go on, rather than stop at the first.

    Raises:
        TraceFormatError: there is no such file. Iterating also raises it: a line is malformed, the file is
            damaged or cut off, or nothing in it is a request.
        ConfigurationError: the notation of a synthetic trace has a mistake. Iterating also raises it: a line
            of text, but no tokenizer, or one without a chat template; standard input a second time.

    >>> for request in open_trace("synthetic:uniform,requests=2,seed=1,length=64"):
    ...     print(request.num_tokens, request.keys.size)
    64 4
    64 4
    """
    where = str(path)
    if where.startswith(SYNTHETIC_PREFIX):
        return open_synthetic(where)
    reader = _Reader(where, tokenizer=tokenizer, skip_bad_lines=skip_bad_lines)
    if where == STANDARD_INPUT:
        return Trace("standard input", reader.read)
    if not Path(path).exists():
        raise TraceFormatError(
            f"there is no file {where}; give a file of JSON lines, or {SYNTHETIC_PREFIX}NAME"
        )
    if Path(path).is_dir():
        raise TraceFormatError(f"{where} is a folder; give one file of JSON lines")
    return Trace(_name_of(Path(path)), reader.read)


class _Reader:
    """Turns the lines of one file into requests, in as many passes as the file allows."""

    def __init__(self, path: str, *, tokenizer: str | Path | None, skip_bad_lines: bool) -> None:
        self._path = path
        self._skip_bad_lines = skip_bad_lines
        self._formats: tuple[LineFormat, ...] = (HashBlocks(), TokenIds(), RequestLog(tokenizer))
        self._num_passes = 0

    def read(self, tally: Tally) -> Iterator[TraceRequest]:
        """Yield the requests of one pass."""
        self._num_passes += 1
        if self._path == STANDARD_INPUT and self._num_passes > 1:
            raise ConfigurationError(
                "standard input can be read only once, and this needs it again; save it to a file first"
            )
        line_format: LineFormat | None = None
        key_tokens = 0
        for number, content in self._lines(tally):
            try:
                record = _parse_json(content)
                chosen = line_format or choose_format(record, self._formats)
                if not chosen.recognises(record):
                    raise InvalidRequestError(
                        f"the trace began with another format, in which a line has {chosen.fields}; keep "
                        "different logs in different files"
                    )
                request = _parse_request(chosen, record, content, number)
                if line_format is not None and request.key_tokens != key_tokens:
                    raise InvalidRequestError(
                        f"blocks of {request.key_tokens} tokens, after lines with blocks of {key_tokens}; a "
                        "trace has one block size: keep different ones in different files"
                    )
            except InvalidRequestError as error:
                self._meet_bad_line(f"{self._path}, line {number}: {error}", tally, cause=error)
                continue
            line_format, key_tokens = chosen, request.key_tokens
            yield request
        if line_format is None:
            raise TraceFormatError(self._nothing_found(tally))

    def _lines(self, tally: Tally) -> Iterator[tuple[int, bytes]]:
        """Yield ``(line number, content)`` of the lines that are not blank."""
        number = 0
        try:
            with open_bytes(self._path) as stream:
                for number, line in enumerate(stream, start=1):
                    content = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).strip()
                    if content:
                        yield number, content
        except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
            # What was read of the broken line is dropped with it: half a prompt would pass for a whole one.
            message = (
                f"{self._path} cannot be read behind line {number}: {error}; the file is damaged or cut off: "
                "copy it again"
            )
            self._meet_bad_line(message, tally, cause=error, remedy="or skip the rest (--skip-bad-lines)")
        except OSError as error:
            raise TraceFormatError(
                f"{self._path} cannot be read: {error}; give a file that this user may read"
            ) from error

    def _meet_bad_line(
        self, message: str, tally: Tally, *, cause: Exception, remedy: str = _SKIP_REMEDY
    ) -> None:
        if not self._skip_bad_lines:
            raise TraceFormatError(f"{message}; {remedy}") from cause
        tally.add_bad_line(message)

    def _nothing_found(self, tally: Tally) -> str:
        if not tally.num_bad_lines:
            return f"{self._path} is empty; give a file with one request a line"
        return (
            f"{self._path} holds no request: all {tally.num_bad_lines} lines are malformed, the first: "
            f"{tally.bad_lines[0]}"
        )


def _parse_json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"not JSON: {error}") from error


def _parse_request(line_format: LineFormat, record: Any, content: bytes, line_number: int) -> TraceRequest:
    try:
        return line_format.parse(record, line_number=line_number)
    except FractionalIdError:
        # Integers beyond 64 bits come out of the fast parser rounded, and different ids as the same one.
        return line_format.parse(json.loads(content), line_number=line_number)


def _name_of(path: Path) -> str:
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name or path.name
