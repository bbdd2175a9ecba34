"""From requests to a file that ``open_trace`` reads back as the same requests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from milepost.errors import InvalidRequestError
from milepost.traces.compression import open_for_writing
from milepost.traces.request import TraceRequest
from milepost.whole_file import written_whole

__all__ = ["write_trace"]


def write_trace(requests: Iterable[TraceRequest], path: str | Path) -> int:
    """Write ``requests`` as JSON lines of block hashes; return how many there were.

    Args:
        requests: Of one block size, at least one.
        path: Compressed if it ends in ``.gz`` or ``.zst``. It appears when all is written: a failure leaves
            what was there before.

    Raises:
        InvalidRequestError: there is no request, or the block sizes differ.
        OSError: the file cannot be written.

    Complexity: O(keys), in the memory of one request.
    """
    with written_whole(Path(path)) as unfinished:
        return _write(requests, unfinished)


def _write(requests: Iterable[TraceRequest], path: Path) -> int:
    num_requests, key_tokens = 0, 0
    with open_for_writing(path) as stream:
        for request in requests:
            if num_requests and request.key_tokens != key_tokens:
                raise InvalidRequestError(
                    f"request {request.request_id!r} has blocks of {request.key_tokens} tokens, the others "
                    f"of {key_tokens}; write each block size to its own file"
                )
            key_tokens = request.key_tokens
            stream.write(orjson.dumps(_record(request), option=_OPTIONS))
            num_requests += 1
    if not num_requests:
        raise InvalidRequestError("there is no request to write, and a trace has at least one")
    return num_requests


_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


def _record(request: TraceRequest) -> dict[str, Any]:
    record = {
        "request_id": request.request_id,
        "session_id": request.session,
        "timestamp_s": request.arrival_seconds,
        "input_length": request.num_tokens,
        "output_length": request.output_tokens,
        "block_size": request.key_tokens,
        "cache_salt": request.tenant or None,
        "breakpoints": request.breakpoints or None,
        "hash_ids": request.keys,
    }
    return {name: value for name, value in record.items() if value is not None}
