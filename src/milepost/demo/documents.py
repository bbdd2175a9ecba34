"""Documents with several different questions about each, out of the user's file."""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import zstandard

from milepost.errors import InvalidRequestError

__all__ = ["Document", "DocumentQuestion", "read_documents"]

# Trace files of the field are compressed with windows of up to 2 GiB.
_MAX_WINDOW = 2**31


@dataclass(frozen=True, slots=True)
class DocumentQuestion:
    """A question, and what a right answer says; None where only a reader could tell."""

    text: str
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One document and what is asked about it."""

    title: str
    text: str
    questions: tuple[DocumentQuestion, ...]


_GENERIC_QUESTIONS = tuple(
    map(
        DocumentQuestion,
        (
            "What is this document about?",
            "Which rules does it state?",
            "Which exceptions and special cases does it name?",
            "Give an example that illustrates it.",
            "Summarise it in one sentence.",
        ),
    )
)


def read_documents(path: Path, *, max_documents: int) -> list[Document]:
    """Read documents from a text file (one document) or from JSON lines, plain, ``.gz`` or ``.zst``.

    A line is an object with ``document`` (or ``text``) and, where there are any, ``questions`` and
    ``group_id`` or ``title``. A question is a string, or an object with ``question`` and ``answer``: what a
    right answer says. Documents without questions get general ones.

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
    questions = record.get("questions") or ()
    if not isinstance(questions, Sequence) or isinstance(questions, str):
        raise InvalidRequestError(f"{where} has questions that are not a list; write ['...', '...']")
    read = tuple(_question_of(question, where=where) for question in questions)
    title = record.get("title", record.get("group_id", where))
    return Document(str(title), text, read or _GENERIC_QUESTIONS)


def _question_of(question: Any, *, where: str) -> DocumentQuestion:
    if isinstance(question, str):
        return DocumentQuestion(question)
    fields = question if isinstance(question, Mapping) else {}
    asked, answer = fields.get("question"), fields.get("answer")
    if not isinstance(asked, str) or not (answer is None or isinstance(answer, str)):
        raise InvalidRequestError(
            f"{where} has questions that are neither strings nor objects of strings; write '...' or "
            "{'question': '...', 'answer': '...'}"
        )
    if answer is not None and not answer.strip():
        raise InvalidRequestError(f"{where} has an empty answer, which every text would hold; leave it out")
    return DocumentQuestion(asked, answer)
