"""Files that are no log are named for what they are, with what to do; JSON in other layouts is read."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import struct
import tarfile
import zipfile

import pytest
import zstandard

from milepost.errors import TraceFormatError
from milepost.traces import open_trace

LINE = json.dumps({"tokens": [1, 2, 3]}).encode()
LOG = (LINE + b"\n") * 40


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("log.jsonl", LOG)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("log.jsonl")
        member.size = len(LOG)
        archive.addfile(member, io.BytesIO(LOG))
    return out.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table log (prompt text)")
    return connection.serialize()


BINARY = {
    "bzip2": (bz2.compress(LOG), "compressed with bzip2.*bzip2 -dc .*log"),
    "xz": (lzma.compress(LOG), "compressed with xz.*xz -dc"),
    "lzma": (lzma.compress(LOG, format=lzma.FORMAT_ALONE), "compressed with lzma"),
    "lz4": (b"\x04\x22\x4d\x18" + LOG, "compressed with lz4"),
    "zip": (zipped(), "a zip archive.*unzip -p"),
    "tar": (tarred(), "a tar archive.*tar -xOf"),
    "tar.gz": (gzip.compress(tarred(), mtime=0), "a tar archive"),
    "parquet": (b"PAR1" + bytes(50), "a Parquet table.*JSON lines"),
    "parquet.zst": (zstandard.compress(b"PAR1" + bytes(50)), "a Parquet table"),
    "sqlite": (database(), "an SQLite database.*sqlite3 -json"),
    "arrow": (b"ARROW1\x00\x00" + bytes(50), "an Arrow table"),
    "pickle": (pickle.dumps([{"text": "a"}]), "a Python pickle.*can run code"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(50), "a NumPy array"),
    "git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "Git LFS.*git lfs pull",
    ),
    "oracleGeneral": (struct.pack("<IQIq", 1, 2, 3, -1) * 20, "a binary file.*oracleGeneral"),
    "UTF-16 with a mark": (LOG.decode().encode("utf-16"), "text in UTF-16.*iconv -f UTF-16 -t UTF-8"),
    "UTF-16 little": (LOG.decode().encode("utf-16-le"), "text in UTF-16LE"),
    "UTF-16 big": (LOG.decode().encode("utf-16-be"), "text in UTF-16BE"),
    "UTF-16 little, behind blanks": ((" \n" + LOG.decode()).encode("utf-16-le"), "text in UTF-16LE"),
    "UTF-16 big, a table": ("TIMESTAMP,ContextTokens\n1,2\n".encode("utf-16-be"), "text in UTF-16BE"),
    "UTF-32 little": (LOG.decode().encode("utf-32-le"), "text in UTF-32LE"),
    "UTF-32 big": (LOG.decode().encode("utf-32-be"), "text in UTF-32BE"),
    "UTF-16, compressed": (gzip.compress(LOG.decode().encode("utf-16"), mtime=0), "text in UTF-16"),
    "UTF-32": (LOG.decode().encode("utf-32"), "text in UTF-32"),
}
TEXT = {
    "Azure": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,4808,10\n",
        "only lengths of prompts",
    ),
    "BurstGPT": (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,GPT,472,18,490,API\n",
        "CSV.*only lengths of prompts, as in the Azure and BurstGPT traces.*'hash_ids'",
    ),
    "a table of lengths with tabs": (
        "arrived_at\tnum_prefill_tokens\tnum_decode_tokens\n0\t5\t6\n",
        "only lengths",
    ),
    "a table of lengths with quotes": ('"input_length","output_length"\n5,6\n', "only lengths"),
    "a table of numbers": ("0.1,374,44\n0.2,396,109\n", "a table of numbers without names"),
    "a table with prompts": (
        "id,prompt,answer\n1,hi,yes\n",
        r"a table \(CSV\) with the columns id, prompt, answer.*read_csv",
    ),
    "vLLM": (
        "INFO 11-28 12:00:01 [logger.py:43] Received request cmpl-1: prompt: 'hi', params: Sampling(n=1)\n",
        "a text log as vLLM and uvicorn write it.*log the request bodies",
    ),
    "vLLM's later workers": (
        "(APIServer pid=17) INFO 11-28 12:00:01 [logger.py:43] Received request chatcmpl-2: prompt: 'hi'\n",
        "a text log as vLLM",
    ),
    "uvicorn": (
        'INFO:     127.0.0.1:5 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n',
        "a text log as vLLM and uvicorn",
    ),
    "SGLang": (
        "[2026-11-28 12:00:01 TP0] Prefill batch. #new-seq: 1, #new-token: 6\n",
        "a text log of a server",
    ),
    "a server": ("2026-11-28T12:00:01.5Z info request done\n", "a text log of a server"),
    "nginx": (
        '10.0.0.1 - - [28/Nov/2026:12:00:01 +0000] "POST /v1/completions HTTP/1.1" 200 12 "-" "curl"\n',
        "the access log of a web server",
    ),
    "HTML": (
        "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n",
        "a web page or XML, perhaps an error page",
    ),
    "server-sent events": ('data: {"choices": []}\n\ndata: [DONE]\n', "a stream of server-sent events"),
    "prose": ("What a day.\n", "line 1: not JSON"),
}
LINES = {
    "lengths": ({"timestamp": 1, "input_length": 5, "output_length": 6}, "only lengths of prompts"),
    "Azure's lengths": (
        {"TIMESTAMP": "x", "ContextTokens": 5, "GeneratedTokens": 6},
        "only lengths of prompts",
    ),
    "a message": ({"session_id": "s", "role": "user", "content": "hi"}, "a single message of a conversation"),
    "a batch's output": (
        {
            "id": "b",
            "custom_id": "c",
            "response": {"status_code": 200, "body": {"choices": []}},
            "error": None,
        },
        "the output of a batch.*the file that the batch was made from",
    ),
    "an answer": ({"id": "c", "object": "chat.completion", "choices": []}, "an answer without its prompt"),
    "a container's log": ({"log": "INFO 11-28 ...\n", "stream": "stdout"}, "a log message in JSON"),
    "OTLP": ({"resourceSpans": []}, "an OTLP export"),
    "something else": ({"a": 1}, "the line is no request: it needs 'hash_ids'"),
}


@pytest.mark.parametrize("name", BINARY)
def test_a_binary_file_is_named_whatever_its_own_name_is_and_skipping_does_not_help(tmp_path, name):
    content, says = BINARY[name]
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    for skip_bad_lines in (False, True):
        with pytest.raises(TraceFormatError, match=f"(?s)log.jsonl is .*{says}"):
            list(open_trace(path, skip_bad_lines=skip_bad_lines))


@pytest.mark.parametrize("pack", [bytes, lambda data: gzip.compress(data, mtime=0)], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", TEXT)
def test_a_text_file_is_named_for_what_it_is(tmp_path, name, pack):
    content, says = TEXT[name]
    path = tmp_path / "log"
    path.write_bytes(pack(content.encode()))
    with pytest.raises(TraceFormatError, match=f"(?s)line 1: not JSON: .*{says}|{says}") as caught:
        list(open_trace(path))
    # A log that is something else has no lines to mend.
    assert ("--skip-bad-lines" in str(caught.value)) == (name == "prose")
    with pytest.raises(TraceFormatError, match=f"(?s)holds no request: all .*{says}"):
        list(open_trace(path, skip_bad_lines=True))


@pytest.mark.parametrize("name", LINES)
def test_json_without_a_prompt_is_named_for_what_it_is(log, name):
    line, says = LINES[name]
    with pytest.raises(TraceFormatError, match=f"line 1: .*{says}"):
        list(log(line))


def test_lines_of_text_between_those_of_a_log_are_bad_lines(log):
    trace = log("INFO:     started", {"tokens": [1]}, "INFO:     stopped", skip_bad_lines=True)
    assert len(list(trace)) == 1
    assert trace.num_bad_lines == 2


def test_a_folder_is_named_with_the_command_that_joins_its_parts(tmp_path):
    with pytest.raises(TraceFormatError, match=r"is a folder.*cat .*> all\.jsonl"):
        open_trace(tmp_path)


REQUESTS = [{"tokens": [1]}, {"tokens": [2, 3]}]
DOCUMENTS = {
    "an array": json.dumps(REQUESTS),
    "an indented array": json.dumps(REQUESTS, indent=2),
    "an array, an element a line": "[\n" + ",\n".join(map(json.dumps, REQUESTS)) + "\n]\n",
    "an array of token ids": "[[1], [2, 3]]",
    "an indented array of token ids": "[\n[1],\n[2, 3]\n]",
    "indented objects": "\n".join(json.dumps(request, indent=2) for request in REQUESTS),
    "an object with a list": json.dumps({"data": REQUESTS}),
    "an indented object with a list": json.dumps({"meta": 1, "requests": REQUESTS}, indent=4),
    "lines of arrays": "\n".join(json.dumps([request]) for request in REQUESTS),
    "with a mark of UTF-8": "\ufeff" + json.dumps(REQUESTS, indent=1),
}


@pytest.mark.parametrize("pack", [bytes, zstandard.compress], ids=["plain", "zstd"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_that_is_laid_out_otherwise_is_the_same_log(tmp_path, name, pack):
    path = tmp_path / "log.json"
    path.write_bytes(pack(DOCUMENTS[name].encode()))
    trace = open_trace(path)
    for _ in range(2):
        assert [request.keys.tolist() for request in trace] == [[1], [2, 3]]
    assert trace.facts.notes() == [
        "one JSON document, held in memory as a whole; JSON lines (jq -c '.[]') are read one by one"
    ]


def test_an_indented_conversation_is_one_request_and_not_an_array(prompts, tmp_path):
    messages = [{"role": "user", "content": "hi"}]
    assert prompts(json.dumps(messages, indent=2)) == [
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    ]


def test_a_bad_element_of_an_array_is_named_and_can_be_skipped(log):
    text = json.dumps([{"tokens": [1]}, {"tokens": [-1]}, {"tokens": [2]}], indent=1)
    with pytest.raises(TraceFormatError, match=r"log\.jsonl, element 2: token id -1"):
        list(log(text))
    trace = log(text, skip_bad_lines=True)
    assert [request.request_id for request in trace] == ["1", "3"]
    assert trace.num_bad_lines == 1


def test_long_integers_in_an_array_stay_different(log):
    lines = [{"input_length": 16, "block_size": 16, "hash_ids": [2**70 + index]} for index in range(2)]
    for text in (json.dumps(lines), json.dumps(lines, indent=1)):
        one, other = log(text)
        assert one.keys.tolist() != other.keys.tolist()


@pytest.mark.parametrize(
    "text", ["[\n{}\n", "[1,\n2", '{\n"tokens": [1]', "[\n", '{"tokens": [1],\n}', "[{},\n{]"]
)
def test_a_document_that_is_cut_off_is_an_error(log, text):
    with pytest.raises(TraceFormatError, match="line 1: not JSON"):
        list(log(text))
