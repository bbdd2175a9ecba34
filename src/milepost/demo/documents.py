"""Real documents with several different questions about each: Python's own, or the user's."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import zstandard

from milepost.errors import InvalidRequestError

__all__ = ["Document", "python_documentation", "read_documents"]

# Long enough that a state pays, short enough that a demo on two cores stays a demo.
_LEAST_CHARACTERS = 3_000
_MOST_CHARACTERS = 7_500
# Trace files of the field are compressed with windows of up to 2 GiB.
_MAX_WINDOW = 2**31

_GENERIC_QUESTIONS = (
    "What is this document about?",
    "Which rules does it state?",
    "Which exceptions and special cases does it name?",
    "Give an example that illustrates it.",
    "Summarise it in one sentence.",
)


@dataclass(frozen=True, slots=True)
class Document:
    """One document and what is asked about it."""

    title: str
    text: str
    questions: tuple[str, ...]


def python_documentation(*, max_documents: int) -> list[Document]:
    """Return topics of the documentation that ships inside every Python, the most useful lengths first.

    Each topic is asked about its own headings and identifiers, so the questions differ in length and words.
    """
    from pydoc_data.topics import topics

    fitting = [
        (title, text) for title, text in topics.items() if _LEAST_CHARACTERS <= len(text) <= _MOST_CHARACTERS
    ]
    fitting.sort(key=lambda topic: (-len(topic[1]), topic[0]))
    return [Document(title, text, _questions_about(title, text)) for title, text in fitting[:max_documents]]


def read_documents(path: Path, *, max_documents: int) -> list[Document]:
    """Read documents from a text file (one document) or from JSON lines, plain, ``.gz`` or ``.zst``.

    A line is an object with ``document`` (or ``text``) and, where there are any, ``questions`` (strings) and
    ``group_id`` or ``title``. Documents without questions get general ones.

    Raises:
        InvalidRequestError: the file is missing, empty or malformed; the message names the line.
    """
    if not path.is_file():
        raise InvalidRequestError(f"{path} is not a file; give a text file or JSON lines of documents")
    documents: list[Document] = []
    try:
        with _open_text(path) as stream:
            if ".jsonl" not in path.name and ".json" not in path.name:
                text = stream.read()
                documents = [Document(path.stem, text, _GENERIC_QUESTIONS)] if text.strip() else []
            else:
                for document in _parse_lines(path, stream):
                    documents.append(document)
                    if len(documents) == max_documents:
                        break
    except (OSError, UnicodeDecodeError, zlib.error, zstandard.ZstdError, EOFError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {error}") from error
    if not documents:
        raise InvalidRequestError(f"{path} holds no document")
    return documents


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(
            path.open("rb"), closefd=True
        )
        return io.TextIOWrapper(reader, encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _parse_lines(path: Path, stream: TextIO) -> Iterator[Document]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InvalidRequestError(f"{path}, line {number} is not JSON: {error}") from error
        yield _document_of(record, where=f"{path}, line {number}")


def _document_of(record: Any, *, where: str) -> Document:
    if not isinstance(record, Mapping):
        raise InvalidRequestError(f"{where} is not an object; write {{'document': ..., 'questions': [...]}}")
    text = record.get("document", record.get("text"))
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"{where} has no text under 'document' (or 'text')")
    questions = record.get("questions") or _GENERIC_QUESTIONS
    if not isinstance(questions, Sequence) or isinstance(questions, str):
        raise InvalidRequestError(f"{where} has questions that are not a list; write ['...', '...']")
    if not all(isinstance(question, str) for question in questions):
        raise InvalidRequestError(f"{where} has questions that are not strings")
    title = record.get("title", record.get("group_id", where))
    return Document(str(title), text, tuple(questions))


def _questions_about(title: str, text: str) -> tuple[str, ...]:
    """Ask about the words that the document itself marks as terms."""
    terms = list(dict.fromkeys(re.findall(r'"([A-Za-z_][\w.()]{3,30})"', text)))
    asked = [f"What does the section on {title} say about {term}?" for term in terms[1:6:2]]
    return (*asked, *_GENERIC_QUESTIONS[: 5 - len(asked)])
