"""Files as they come: compressed, cut off, with bad lines, from a pipe, huge."""

import gzip
import io
import json
import sys
import tracemalloc
from contextlib import suppress
from itertools import islice

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.errors import ConfigurationError, TraceFormatError
from milepost.traces import open_trace

LINES = [
    json.dumps({"input_length": 32, "block_size": 16, "hash_ids": [index, index + 1]}) for index in range(500)
]
PLAIN = "\n".join(LINES).encode() + b"\n"
KEYS = [[index, index + 1] for index in range(500)]


def zstd_frames(data: bytes) -> bytes:
    """Several frames behind a skippable one, as parallel compressors write them."""
    half = len(data) // 2
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"
    return skippable + b"".join(zstandard.compress(part) for part in (data[:half], data[half:]))


PACKED = {
    "log.jsonl": PLAIN,
    "log.jsonl.gz": gzip.compress(PLAIN),
    "two-members.jsonl.gz": gzip.compress(PLAIN[:999]) + gzip.compress(PLAIN[999:]),
    "log.jsonl.zst": zstandard.compress(PLAIN),
    "frames.jsonl.zst": zstd_frames(PLAIN),
    "long-window.jsonl.zst": zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    ).compress(PLAIN),
    "misnamed.jsonl": zstandard.compress(PLAIN),
    "crlf.jsonl": PLAIN.replace(b"\n", b"\r\n"),
    "mark-and-blanks.jsonl": b"\xef\xbb\xbf\n  \n" + PLAIN.replace(b"\n", b"\n\n"),
    "no-last-newline.jsonl": PLAIN.rstrip(),
}


# The names that readers look for, in any combination.
field_names = st.sampled_from(
    ["hash_ids", "input_length", "block_size", "tokens", "breakpoints", "timestamp", "timestamp_s", "id"]
) | st.sampled_from(
    [
        "messages",
        "prompt",
        "text",
        "request",
        "body",
        "role",
        "content",
        "response",
        "usage",
        "tools",
        "system",
    ]
)
# ... in what is said about a request, and in its other dialects.
field_names |= st.sampled_from(
    ["model", "lora", "adapter", "tenant", "status", "error", "choices", "finish_reason", "url", "session_id"]
) | st.sampled_from(
    [
        "input",
        "instructions",
        "contents",
        "parts",
        "conversations",
        "from",
        "value",
        "type",
        "tool_calls",
        "tool_result",
        "toolUse",
        "source",
        "images",
        "prompt_tokens",
        "kwargs",
        "data",
        "attributes",
        "gen_ai.prompt.0.role",
        "gen_ai.prompt.0.content",
        "gen_ai.input.messages",
    ]
)


def keys_of(trace) -> list[list[int]]:
    return [request.keys.tolist() for request in trace]


@pytest.mark.parametrize("name", PACKED)
def test_a_file_reads_the_same_however_it_is_packed_and_as_often_as_asked(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(PACKED[name])
    trace = open_trace(path)
    assert keys_of(trace) == KEYS
    assert keys_of(trace) == KEYS
    assert (trace.name, trace.num_requests, trace.num_bad_lines) == (name.partition(".")[0], 500, 0)


@pytest.mark.parametrize("name", [name for name in PACKED if name.endswith((".gz", ".zst"))])
@pytest.mark.parametrize("lost_bytes", [1, 5, 60])
def test_a_compressed_file_that_is_cut_off_never_passes_for_a_shorter_one(tmp_path, name, lost_bytes):
    path = tmp_path / name
    path.write_bytes(PACKED[name][:-lost_bytes])
    with pytest.raises(TraceFormatError, match=r"cannot be read after line \d+.*cut off.*skip the rest"):
        list(open_trace(path))


@pytest.mark.parametrize("name", ["log.jsonl.gz", "frames.jsonl.zst"])
def test_what_was_whole_before_the_cut_is_kept_when_skipping_and_the_tail_is_counted(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(PACKED[name][:-1])
    trace = open_trace(path, skip_bad_lines=True)
    keys = keys_of(trace)
    assert keys == KEYS[: len(keys)]
    assert len(keys) > 200
    assert trace.num_bad_lines == 1
    assert "cut off" in trace.bad_lines[0]


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.jsonl.zst"])
def test_a_damaged_compressed_file_is_an_error(tmp_path, name):
    data = bytearray(PACKED[name])
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(TraceFormatError, match=rf"{name}"):
        list(open_trace(path))


@pytest.mark.parametrize(
    "data",
    # Without a time in it: the workers of one run have to find the same tests.
    [b"", b"\n \r\n", b"\xef\xbb\xbf", zstandard.compress(b""), gzip.compress(b"", mtime=0)],
)
def test_an_empty_file_is_an_error(tmp_path, data):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(data)
    with pytest.raises(TraceFormatError, match=r"empty\.jsonl is empty; give"):
        list(open_trace(path))


BAD_LINES = {
    "{": "not JSON",
    '{"input_length": 16, "block_size": 16, "hash_ids": [1': "not JSON",
    '{"input_length": NaN, "block_size": 16, "hash_ids": [1]}': "not JSON",
    '{"input_length": 1e999, "block_size": 16, "hash_ids": [1]}': "not JSON",
    '{"input_length": 16, "block_size": 16, "hash_ids": ["\\ud800"]}': "not JSON",
    '{"input_length": 16, "block_size": 16, "hash_ids": [1]} {}': "not JSON",
    "[" * 5000: "not JSON",
    "17": "another format",
    "null": "another format",
    '"text"': "another format",
    "{}": "another format",
    "[1, 2, 3]": "another format",
    '{"prompt": "text"}': "another format",
    '{"input_length": 16, "block_size": 64, "hash_ids": [1]}': "one block size",
    '{"input_length": 16, "hash_ids": [1]}': "one block size",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:60])
def test_a_bad_line_is_an_error_or_skipped_and_counted(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([LINES[0], line, LINES[1]]))
    with pytest.raises(TraceFormatError, match=rf"log\.jsonl, line 2: .*{BAD_LINES[line]}.*--skip-bad-lines"):
        list(open_trace(path))
    trace = open_trace(path, skip_bad_lines=True)
    assert keys_of(trace) == KEYS[:2]
    assert trace.num_bad_lines == 1
    assert BAD_LINES[line] in trace.bad_lines[0]


def test_bytes_that_are_no_utf_8_are_a_bad_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"hash_ids": ["\xff"]}\n')
    with pytest.raises(TraceFormatError, match="line 1: not JSON"):
        list(open_trace(path))


def test_the_format_is_that_of_the_first_good_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(["{}", "{", "[1, 2]", LINES[0], "[3]"]))
    with pytest.raises(TraceFormatError, match="line 1: the line is no request: it needs 'hash_ids'"):
        list(open_trace(path))
    trace = open_trace(path, skip_bad_lines=True)
    assert keys_of(trace) == [[1, 2], [3]]
    assert trace.num_bad_lines == 3


def test_a_file_without_one_good_line_is_an_error_even_when_skipping(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("{\n" * 20)
    trace = open_trace(path, skip_bad_lines=True)
    with pytest.raises(TraceFormatError, match=r"all 20 lines are malformed, the first: .*line 1: not JSON"):
        list(trace)
    assert (trace.num_bad_lines, len(trace.bad_lines)) == (20, 5)


def test_what_is_no_file_is_an_error_at_once(tmp_path):
    with pytest.raises(TraceFormatError, match="there is no file"):
        open_trace(tmp_path / "none.jsonl")
    with pytest.raises(TraceFormatError, match="is a folder"):
        open_trace(tmp_path)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(PLAIN)
    trace = open_trace(path)
    path.unlink()
    with pytest.raises(TraceFormatError, match="cannot be read"):
        list(trace)


def test_standard_input_is_read_once(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(zstandard.compress(PLAIN))))
    trace = open_trace("-")
    assert keys_of(trace) == KEYS
    with pytest.raises(ConfigurationError, match=r"read only once.*save it to a file"):
        list(trace)


def test_times_that_run_backwards_are_counted_and_stay(tmp_path):
    path = tmp_path / "log.jsonl"
    times = [5, 3, None, 4, 4, 1e9, 2]
    path.write_text("\n".join(json.dumps({"tokens": [1], "timestamp": at, "id": "same"}) for at in times))
    trace = open_trace(path)
    assert [request.arrival_seconds for request in trace] == times
    assert trace.num_out_of_order == 2


def test_a_trace_need_not_be_read_to_its_end(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(PLAIN)
    trace = open_trace(path)
    assert keys_of(islice(trace, 3)) == KEYS[:3]
    assert trace.num_requests == 3
    assert keys_of(trace) == KEYS


@pytest.mark.parametrize("pack", [bytes, zstandard.compress])
def test_a_file_of_fifty_megabytes_is_read_in_the_memory_of_a_few_lines(tmp_path, pack):
    line = json.dumps({"input_length": 16, "block_size": 16, "hash_ids": [1], "note": "x" * 500_000})
    path = tmp_path / "large.jsonl"
    path.write_bytes(pack((line + "\n").encode() * 100))
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_trace(path)) == 100
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 12e6


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(field_names, inner, max_size=4),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(lines=st.lists(st.dictionaries(field_names, json_values, max_size=6) | json_values, max_size=4))
def test_whatever_json_a_file_holds_ends_in_requests_or_in_an_error_of_ours(tmp_path, lines):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    trace = open_trace(path, skip_bad_lines=True)
    with suppress(TraceFormatError, ConfigurationError):
        num_requests = len(list(trace))
        facts = trace.facts
        # A line may be several requests, and a list several lines.
        left_out = facts.num_bad_lines + facts.num_refused + sum(facts.other_endpoints.values())
        assert num_requests + left_out >= len(lines)
        assert json.loads(json.dumps(facts.as_json()))["num_requests"] == num_requests
        assert all(facts.notes())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(name=st.sampled_from(sorted(PACKED)), data=st.data())
def test_whatever_bytes_are_damaged_the_error_is_ours(tmp_path, name, data):
    packed = bytearray(PACKED[name])
    for at in data.draw(st.lists(st.integers(0, len(packed) - 1), max_size=5)):
        packed[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / name
    path.write_bytes(packed)
    for skip_bad_lines in (False, True):
        with suppress(TraceFormatError):
            list(open_trace(path, skip_bad_lines=skip_bad_lines))


def test_reading_traces_loads_no_tensor_library():
    import subprocess

    program = (
        "import sys, milepost.traces; list(milepost.traces.open_trace('synthetic:chat,requests=2'));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
