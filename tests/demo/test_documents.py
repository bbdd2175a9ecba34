"""Documents from Python itself and from the user's files, whole or refused by line."""

import gzip
import json

import pytest
import zstandard

from milepost.demo.documents import DocumentQuestion, read_documents
from milepost.errors import InvalidRequestError

LINES = [
    {"document": "One text.", "questions": ["Why?", "How?"], "title": "one"},
    {"text": "Another text.", "group_id": 7},
]


def write(path, data: bytes):
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)
    return path


def json_lines(*records) -> bytes:
    return "\n\n".join(json.dumps(record) for record in records).encode()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".json"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_lines_are_read_in_every_wrapping(tmp_path, suffix, mark):
    path = write(tmp_path / f"documents{suffix}", mark + json_lines(*LINES))
    one, another = read_documents(path, max_documents=9)
    assert (one.title, one.text) == ("one", "One text.")
    assert one.questions == (DocumentQuestion("Why?"), DocumentQuestion("How?"))
    assert (another.title, another.text) == ("7", "Another text.")
    assert len(another.questions) == 5, "a document without questions gets general ones"
    assert len(read_documents(path, max_documents=1)) == 1


@pytest.mark.parametrize("suffix", [".txt", ".md", ".txt.gz", ".txt.zst"])
def test_a_text_file_is_one_document(tmp_path, suffix):
    path = write(tmp_path / f"story{suffix}", "Once upon a time.\nThe end: é.".encode())
    (document,) = read_documents(path, max_documents=9)
    assert document.title.startswith("story")
    assert document.text == "Once upon a time.\nThe end: é."
    assert document.questions


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ('"text"', "is not an object"),
        ("{}", "has no text under 'document'"),
        ('{"document": "  "}', "has no text"),
        ('{"document": 5}', "has no text"),
        ('{"document": "a", "questions": "Why?"}', "has questions that are not a list"),
        ('{"document": "a", "questions": 5}', "has questions that are not a list"),
        ('{"document": "a", "questions": [1]}', "has questions that are neither strings nor objects"),
        ('{"document": "a", "questions": [{"answer": "b"}]}', "has questions that are neither"),
        (
            '{"document": "a", "questions": [{"question": "b", "answer": 5}]}',
            "has questions that are neither",
        ),
        ('{"document": "a", "questions": [{"question": "b", "answer": " "}]}', "has an empty answer"),
    ],
)
def test_a_malformed_line_is_refused_with_its_number(tmp_path, line, says):
    path = write(tmp_path / "documents.jsonl", json_lines(LINES[0]) + b"\n\n" + line.encode())
    with pytest.raises(InvalidRequestError, match=f"line 3 {says}"):
        read_documents(path, max_documents=9)
    assert len(read_documents(path, max_documents=1)) == 1, "lines that are not needed are not read"


@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".jsonl.gz", ".jsonl.zst"])
def test_an_empty_file_holds_no_document(tmp_path, suffix):
    with pytest.raises(InvalidRequestError, match="holds no document"):
        read_documents(write(tmp_path / f"empty{suffix}", b" \n "), max_documents=9)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".txt.gz"])
@pytest.mark.parametrize("damage", ["truncated", "garbled", "another format"])
def test_a_damaged_archive_is_refused(tmp_path, suffix, damage):
    path = write(tmp_path / f"documents{suffix}", json_lines(*LINES) * 50)
    data = bytearray(path.read_bytes())
    if damage == "garbled":
        data[12:24] = b"\xff" * 12
    path.write_bytes(
        {"truncated": data[:-9], "garbled": data, "another format": b"plain text, no archive"}[damage]
    )
    with pytest.raises(InvalidRequestError, match=str(path)):
        read_documents(path, max_documents=200)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read_documents(write(tmp_path / "binary.txt", b"\xff\xfe\x00\x01"), max_documents=1)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(InvalidRequestError, match="is not a file"):
            read_documents(path, max_documents=1)


def test_a_question_may_come_with_its_answer(tmp_path):
    questions = ["Why?", {"question": "Who?", "answer": "Ada"}, {"question": "When?"}]
    path = write(tmp_path / "documents.jsonl", json_lines({"document": "Ada.", "questions": questions}))
    (document,) = read_documents(path, max_documents=1)
    assert document.questions == (
        DocumentQuestion("Why?"),
        DocumentQuestion("Who?", expected="Ada"),
        DocumentQuestion("When?"),
    )
