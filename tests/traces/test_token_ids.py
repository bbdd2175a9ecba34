"""Logs of token ids."""

import json

import pytest

from milepost.errors import TraceFormatError
from milepost.traces import open_trace


@pytest.fixture
def read(tmp_path):
    def read_lines(*records):
        path = tmp_path / "tokens.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return list(open_trace(path))

    return read_lines


@pytest.mark.parametrize("name", ["tokens", "token_ids", "prompt_token_ids", "input_ids"])
def test_token_ids_are_their_own_keys(read, name):
    (request,) = read({name: [5, 0, 7], "session_id": "s", "timestamp": 12.5, "output_tokens": 3})
    assert (request.keys.tolist(), request.key_tokens, request.num_tokens) == ([5, 0, 7], 1, 3)
    assert (request.session, request.arrival_seconds, request.output_tokens) == ("s", 12.5, 3)


def test_a_line_may_be_just_the_list(read):
    first, second = read([1, 2, 3], {"tokens": [4]})
    assert (first.keys.tolist(), second.keys.tolist()) == ([1, 2, 3], [4])
    assert (first.request_id, second.request_id) == ("1", "2")


def test_times_may_be_dates(read):
    zulu, offset, local = read(
        {"tokens": [1], "timestamp": "2026-01-01T00:00:01Z"},
        {"tokens": [1], "timestamp": "2026-01-01T01:00:01+01:00"},
        {"tokens": [1], "timestamp": "2026-01-01 00:00:01"},
    )
    assert zulu.arrival_seconds == offset.arrival_seconds == local.arrival_seconds == 1767225601.0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ([], "prompt is empty"),
        ({"tokens": []}, "prompt is empty"),
        ([1, -2], "token id -2 at position 1"),
        ([1, 2**31], "token id 2147483648"),
        ([1, 2**70], "whole numbers"),
        ([1, 2.0], "whole numbers"),
        ([1, True], "whole numbers"),
        ([1, "2"], "whole numbers"),
        ([[1, 2], 3], "whole numbers"),
        ({"tokens": "1 2"}, "whole numbers"),
        ({"tokens": None}, "whole numbers"),
    ],
)
def test_what_is_no_list_of_token_ids_is_an_error(read, line, says):
    with pytest.raises(TraceFormatError, match=f"line 1: .*{says}"):
        read(line)
