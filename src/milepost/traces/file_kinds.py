"""Files that people have and that are no log of prompts, told by how they begin, and what to do about each.

Binary files are told by their first bytes, text by its first line that is no JSON.
"""

import re
from dataclasses import dataclass

from milepost.errors import TraceFormatError
from milepost.traces.compression import shown_name
from milepost.traces.unusable import HOW_TO_LOG, LENGTHS_ONLY, lengths_only

__all__ = ["SNIFFED_BYTES", "refuse_other_files", "what_text_is"]

SNIFFED_BYTES = 512
_TO_JSON_LINES = "write it as JSON lines, one request a line, in their order of arrival"


@dataclass(frozen=True, slots=True)
class _Kind:
    magic: bytes
    what: str
    remedy: str
    at: int = 0


_UNPACK = "unpack it: {tool} {{path}} | milepost simulate - ..."
_PYARROW = f"{_TO_JSON_LINES} (with pyarrow or pandas)"
_KINDS = (
    _Kind(b"BZh", "compressed with bzip2", _UNPACK.format(tool="bzip2 -dc")),
    _Kind(b"\xfd7zXZ\x00", "compressed with xz", _UNPACK.format(tool="xz -dc")),
    _Kind(b"\x5d\x00\x00", "compressed with lzma", _UNPACK.format(tool="xz -dc --format=lzma")),
    _Kind(b"\x04\x22\x4d\x18", "compressed with lz4", _UNPACK.format(tool="lz4 -dc")),
    _Kind(b"\xff\x06\x00\x00sNaPpY", "compressed with snappy", "compress it with gzip or zstd instead"),
    _Kind(b"PK\x03\x04", "a zip archive (or a spreadsheet)", _UNPACK.format(tool="unzip -p")),
    _Kind(b"PK\x05\x06", "an empty zip archive", "give the file that should be in it"),
    _Kind(b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK.format(tool="7z x -so")),
    _Kind(b"Rar!\x1a\x07", "a rar archive", _UNPACK.format(tool="unrar p -inul")),
    _Kind(b"ustar", "a tar archive", _UNPACK.format(tool="tar -xOf"), at=257),
    _Kind(b"PAR1", "a Parquet table", _PYARROW),
    _Kind(b"ARROW1", "an Arrow table", _PYARROW),
    _Kind(b"\xff\xff\xff\xff", "an Arrow stream", _PYARROW),
    _Kind(b"ORC", "an ORC table", _PYARROW),
    _Kind(b"Obj\x01", "an Avro file", f"{_TO_JSON_LINES} (with fastavro)"),
    _Kind(b"SQLite format 3\x00", "an SQLite database", f"{_TO_JSON_LINES} (sqlite3 -json, jq -c '.[]')"),
    _Kind(b"\x89HDF", "an HDF5 file", _TO_JSON_LINES),
    _Kind(b"\x93NUMPY", "a NumPy array", f"{_TO_JSON_LINES}, a prompt a list of token ids"),
    _Kind(b"%PDF", "a PDF document", "give the log itself"),
    _Kind(b"version https://git-lfs", "a pointer to a file in Git LFS, not the file", "run git lfs pull"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95|[}\](cq])", re.DOTALL)
_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# Which of four bytes are zero in Latin text.
_ZEROS = {
    "UTF-16LE": (False, True, False, True),
    "UTF-16BE": (True, False, True, False),
    "UTF-32LE": (False, True, True, True),
    "UTF-32BE": (True, True, True, False),
}
_CLOCK = rb"\d\d:\d\d:\d\d"
_TEXTS = (
    (
        re.compile(rb"(?:<!doctype|<html|<\?xml|<head|<body)", re.IGNORECASE),
        "a web page or XML, perhaps an error page that was saved in the log's place",
        "fetch the log again",
    ),
    (
        re.compile(
            rb"(?:\([^)]*\) )?(?:INFO|WARNING|ERROR|DEBUG)[: ].*(?:vllm|"
            + _CLOCK
            + rb"|HTTP/1)|.*Received request "
        ),
        "a text log as vLLM and uvicorn write it",
        f"its lines show prompts cut or not at all, so nothing can be replayed; {HOW_TO_LOG}",
    ),
    (
        re.compile(
            rb"\[\d{4}-\d\d-\d\d " + _CLOCK + rb"[^\]]*\]|\d{4}-\d\d-\d\d[ T]" + _CLOCK + rb"\S*[ \t]+\S"
        ),
        "a text log of a server (each line begins with a time)",
        f"its lines are no requests with their prompts; {HOW_TO_LOG}",
    ),
    (
        re.compile(rb"\S+ \S+ \S+ \[[^\]]+\] \""),
        "the access log of a web server",
        f"it has paths and sizes, and no prompts; {HOW_TO_LOG}",
    ),
    (
        re.compile(rb"(?:data|event): ?"),
        "a stream of server-sent events, which are answers",
        f"the prompts are in the requests; {HOW_TO_LOG}",
    ),
)
_SEPARATORS = (b",", b"\t", b";", b"|")
_NUMBERS = re.compile(rb"[\d.eE+\-: T/,;\t|\"]+")


def refuse_other_files(head: bytes, path: str) -> None:
    """Raise ``TraceFormatError`` where the first bytes of a file are those of another kind of file."""
    for kind in _KINDS:
        if head[kind.at :].startswith(kind.magic):
            raise _refusal(path, kind.what, kind.remedy.format(path=path))
    if _PICKLE.match(head):
        raise _refusal(
            path,
            "a Python pickle, as SGLang dumps requests",
            f"it can run code, so it is not opened; load it where you trust it and {_TO_JSON_LINES}",
        )
    encoding = _encoding_of(head)
    if encoding is not None:
        raise _refusal(
            path, f"text in {encoding}", f"write it in UTF-8: iconv -f {encoding} -t UTF-8 {path} > log.jsonl"
        )
    if b"\x00" in head:
        raise _refusal(
            path,
            "a binary file of an unknown kind (traces of object ids for cache simulators, such as "
            "oracleGeneral, are binary, too)",
            f"give a log of prompts; {HOW_TO_LOG}",
        )


def what_text_is(line: bytes) -> str | None:
    """Return what a file is that has this line where JSON was expected, and the remedy; None if unknown."""
    for pattern, what, remedy in _TEXTS:
        if pattern.match(line):
            return f"this is {what}: {remedy}"
    for separator in _SEPARATORS:
        if line.count(separator) and line[:1] not in (b"{", b"["):
            columns = [column.strip(b" \"'").decode(errors="replace") for column in line.split(separator)]
            if lengths_only(columns):
                return f"this is a table (CSV) with {LENGTHS_ONLY}"
            if _NUMBERS.fullmatch(line):
                return f"this is a table of numbers without names, perhaps lengths of prompts; {HOW_TO_LOG}"
            return (
                f"this is a table (CSV) with the columns {', '.join(columns[:8])}; if one of them is the "
                f"prompt, {_TO_JSON_LINES}: pandas.read_csv(...).to_json(..., orient='records', lines=True)"
            )
    return None


def _encoding_of(head: bytes) -> str | None:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    # Without a mark, the zeros of text that is mostly Latin stand at every second byte, or at three of four.
    size = len(head) // 4
    zeros = [head[at : 4 * size : 4].count(0) / size for at in range(4)] if size else []
    for encoding, expected in _ZEROS.items():
        if size and all(
            share > 0.5 if is_zero else share == 0 for share, is_zero in zip(zeros, expected, strict=True)
        ):
            return encoding
    return None


def _refusal(path: str, what: str, remedy: str) -> TraceFormatError:
    return TraceFormatError(f"{shown_name(path)} is {what}, and no JSON lines; {remedy}")
