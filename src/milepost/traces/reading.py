"""From a path to a trace: lines are read one at a time, and each becomes requests or an error.

The formats are listed in ``open_trace``. A line costs its parsing; memory holds one line, its requests and
nothing that grows with the trace.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from milepost.errors import ConfigurationError, InvalidRequestError, TraceFormatError
from milepost.traces.compression import STANDARD_INPUT, open_bytes, shown_name
from milepost.traces.formats import LineFormat
from milepost.traces.hash_blocks import HashBlocks
from milepost.traces.line_reading import Line, LineReader
from milepost.traces.records import Entry, read_entries
from milepost.traces.request import TraceRequest
from milepost.traces.request_log import RequestLog
from milepost.traces.synthetic import SYNTHETIC_PREFIX, open_synthetic
from milepost.traces.tally import Tally
from milepost.traces.token_ids import TokenIds
from milepost.traces.trace import Trace
from milepost.traces.unusable import UnusableLogError

__all__ = ["open_trace"]

_SUFFIXES = (".gz", ".zst", ".jsonl", ".ndjson", ".json")
_SKIP_REMEDY = "mend the line, or skip such lines (--skip-bad-lines, skip_bad_lines=True)"


def open_trace(
    path: str | Path,
    *,
    tokenizer: str | Path | None = None,
    skip_bad_lines: bool = False,
    whole_prompts: bool = False,
    image_tokens: int | None = None,
) -> Trace:
    """Open a request log, or make one up, as an iterable of requests.

    Args:
        path: A file of JSON lines, plain, gzip or Zstandard; ``-`` for standard input, which can be iterated
            once; or ``synthetic:NAME,option=value,...`` (see ``milepost.traces.synthetic``). A line is

            * a prompt as block hashes (``hash_ids``): Mooncake, Qwen-Bailian, or ours;
            * a prompt as token ids: a list, or ``tokens`` and its other usual names;
            * a request body of any usual API (OpenAI's, Anthropic's, Google's, vLLM's, SGLang's ...), alone
              or inside of what a gateway, a tracer or a batch file has around it;
            * a whole conversation (``conversations``), which becomes a request for each answer.

            All lines of a trace have one format and one block size. Times may be missing and may go
            backwards, and request ids are labels that may repeat: the order of the lines is what counts.
            Requests of different models, adapters or salts share nothing; those that failed or were refused
            are left out. ``Trace.facts`` says what was met.
        tokenizer: For lines of text: a Hugging Face name or folder, or a ``tokenizer.json``.
        skip_bad_lines: Count malformed lines and go on, rather than stop at the first.
        whole_prompts: Believe that each line holds its whole prompt, also where the turns of a conversation
            do not begin alike.
        image_tokens: Tokens that an image counts as; a short placeholder stands for it unless given.

    Raises:
        TraceFormatError: there is no such file. Iterating also raises it: a line is malformed, the file is
            damaged, cut off or of another kind, or nothing in it is a request; turns are not whole prompts.
        ConfigurationError: the notation of a synthetic trace has a mistake, or ``image_tokens`` is below 1.
            Iterating also raises it: a line of text, but no tokenizer, or one without a chat template;
            standard input a second time.

    >>> for request in open_trace("synthetic:uniform,requests=2,seed=1,length=64"):
    ...     print(request.num_tokens, request.keys.size)
    64 4
    64 4
    """
    if image_tokens is not None and image_tokens < 1:
        raise ConfigurationError(f"image_tokens={image_tokens}; an image counts as at least 1 token")
    where = str(path)
    if where.startswith(SYNTHETIC_PREFIX):
        return open_synthetic(where)
    formats = (HashBlocks(), TokenIds(), RequestLog(tokenizer, image_tokens=image_tokens))
    reader = _Reader(
        where, formats, skip_bad_lines=skip_bad_lines, whole_prompts=whole_prompts, image_tokens=image_tokens
    )
    if where == STANDARD_INPUT:
        return Trace(shown_name(where), reader.read)
    if not Path(path).exists():
        raise TraceFormatError(
            f"there is no file {where}; give a file of JSON lines, or {SYNTHETIC_PREFIX}NAME"
        )
    if Path(path).is_dir():
        raise TraceFormatError(
            f"{where} is a folder; give one file of JSON lines. Parts of one log are joined in their order: "
            f"cat {where}/... > all.jsonl (also if they are .gz or .zst)"
        )
    return Trace(_name_of(Path(path)), reader.read)


class _Reader:
    """Turns the lines of one file into requests, in as many passes as the file allows."""

    def __init__(
        self,
        path: str,
        formats: tuple[LineFormat, ...],
        *,
        skip_bad_lines: bool,
        whole_prompts: bool,
        image_tokens: int | None,
    ) -> None:
        self._path = path
        self._name = shown_name(path)
        self._formats = formats
        self._skip_bad_lines = skip_bad_lines
        self._whole_prompts = whole_prompts
        self._image_tokens = image_tokens
        self._num_passes = 0

    def read(self, tally: Tally) -> Iterator[TraceRequest]:
        """Yield the requests of one pass."""
        self._num_passes += 1
        if self._path == STANDARD_INPUT and self._num_passes > 1:
            raise ConfigurationError(
                "standard input can be read only once, and this needs it again; save it to a file first"
            )
        lines = LineReader(self._formats)
        tally.image_tokens = self._image_tokens
        for entry in self._entries(tally):
            try:
                line = lines.read(entry)
            except InvalidRequestError as error:
                # A log that is something else has no lines to mend.
                is_all = isinstance(error, UnusableLogError) and not lines.has_found
                remedy = "" if is_all else _SKIP_REMEDY
                self._meet_bad_line(
                    f"{self._name}, {entry.place}: {error}", tally, cause=error, remedy=remedy
                )
                continue
            tally.is_document |= entry.is_in_document
            self._count(line, entry.place, tally)
            yield from line.requests
        if not lines.has_found:
            raise TraceFormatError(self._nothing_found(tally))

    def _count(self, line: Line, place: str, tally: Tally) -> None:
        tally.add_line(line)
        if line.turn is not None and not self._whole_prompts:
            tally.turns.add(line.turn, place=f"{self._name}, {place}")

    def _entries(self, tally: Tally) -> Iterator[Entry]:
        number = 0
        try:
            with open_bytes(self._path) as stream:
                for entry in read_entries(stream, path=self._path):
                    number = entry.number
                    yield entry
        except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
            # What was read of the broken line is dropped with it: half a prompt would pass for a whole one.
            message = (
                f"{self._name} cannot be read after line {number}: {error}; the file is damaged or cut off: "
                "copy it again"
            )
            self._meet_bad_line(message, tally, cause=error, remedy="or skip the rest (--skip-bad-lines)")
        except OSError as error:
            raise TraceFormatError(
                f"{self._name} cannot be read: {error}; give a file that this user may read"
            ) from error

    def _meet_bad_line(
        self, message: str, tally: Tally, *, cause: Exception, remedy: str = _SKIP_REMEDY
    ) -> None:
        if not self._skip_bad_lines:
            raise TraceFormatError(f"{message}; {remedy}" if remedy else message) from cause
        tally.add_bad_line(message)

    def _nothing_found(self, tally: Tally) -> str:
        left_out = sum(tally.refused.values()) + sum(tally.other_endpoints.values())
        if not tally.num_bad_lines and not left_out:
            return f"{self._name} is empty; give a file with one request a line"
        if not tally.num_bad_lines:
            return (
                f"{self._name} holds no request that was computed: all {left_out} lines tell of requests "
                "that failed, were refused or generate nothing "
                f"({', '.join((*tally.refused, *tally.other_endpoints))})"
            )
        return (
            f"{self._name} holds no request: all {tally.num_bad_lines} lines are malformed, the first: "
            f"{tally.bad_lines[0]}"
        )


def _name_of(path: Path) -> str:
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name or path.name
