"""Logs of block hashes: Mooncake's, Bailian's and ours."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.errors import TraceFormatError
from milepost.traces import open_trace
from milepost.traces.keys import as_keys


@pytest.fixture
def read(tmp_path):
    def read_lines(*records):
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return list(open_trace(path))

    return read_lines


def block(**changes):
    return {"input_length": 40, "block_size": 16, "hash_ids": [1, 2, 3]} | changes


def test_a_mooncake_line_has_blocks_of_512_and_milliseconds(read):
    (request,) = read(
        {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": list(range(46, 60))}
    )
    assert (request.key_tokens, request.num_tokens, request.output_tokens) == (512, 6955, 52)
    assert request.arrival_seconds == 27.482
    assert request.keys.tolist() == list(range(46, 60))
    assert request.request_id == "1"


def test_a_bailian_line_has_blocks_of_16_and_seconds(read):
    (request,) = read(
        {
            "chat_id": 159,
            "parent_chat_id": 55,
            "timestamp": 61.114,
            "input_length": 33,
            "output_length": 132,
            "type": "text",
            "turn": 2,
            "hash_ids": [1089, 1090, 13148],
        }
    )
    assert (request.key_tokens, request.num_tokens, request.output_tokens) == (16, 33, 132)
    assert (request.arrival_seconds, request.request_id, request.session) == (61.114, "159", None)


def test_our_own_line_says_all_itself(read):
    (request,) = read(
        block(
            request_id=4,
            session_id="s",
            timestamp_s=1.5,
            timestamp=9,
            output_length=None,
            cache_salt="t",
            breakpoints=[8, 40],
        )
    )
    assert (request.request_id, request.session, request.tenant) == ("4", "s", "t")
    assert (request.arrival_seconds, request.output_tokens) == (1.5, None)
    assert request.breakpoints == (8, 40)


def test_where_the_last_partial_block_has_no_id_it_counts_and_never_matches(read):
    first, second = read(block(hash_ids=[1, 2]), block(hash_ids=[1, 2]))
    assert first.keys.size == second.keys.size == 3
    assert first.keys[:2].tolist() == second.keys[:2].tolist() == [1, 2]
    assert first.keys[2] != second.keys[2]


def test_a_prompt_shorter_than_a_block_may_have_no_id_at_all(read):
    (request,) = read(block(input_length=5, hash_ids=[]))
    assert request.keys.size == 1


@pytest.mark.parametrize(
    ("num_tokens", "num_ids", "known"),
    [
        (40, 3, 3),  # an id for the partial block, too
        (40, 2, 2),  # whole blocks only
        (48, 3, 3),
        (48, 2, 2),  # the last token is never taken from a cache, so its block has no id
        (16, 0, 0),
        (5, 0, 0),
        (5, 1, 1),
    ],
)
def test_a_log_may_leave_out_the_id_of_the_last_block(read, num_tokens, num_ids, known):
    line = block(input_length=num_tokens, hash_ids=list(range(num_ids)))
    first, second = read(line, line)
    assert first.num_tokens == num_tokens
    assert first.keys.tolist()[:known] == second.keys.tolist()[:known] == list(range(known))
    # What has no id matches nothing.
    assert not set(first.keys.tolist()[known:]) & set(second.keys.tolist()[known:])


@pytest.mark.parametrize("num_ids", [4, 5])
def test_ids_that_go_on_over_the_answer_end_with_the_last_whole_block_of_the_prompt(read, num_ids):
    line = block(input_length=40, output_length=30, hash_ids=list(range(num_ids)))
    first, second = read(line, line)
    assert first.keys.size == second.keys.size == 3
    assert first.keys.tolist()[:2] == second.keys.tolist()[:2] == [0, 1]
    # The third block is of the prompt and of the answer, and what it was without the answer is unknown.
    assert first.keys[2] != second.keys[2]


@pytest.mark.parametrize(
    "changes", [{"output_length": 30, "hash_ids": list(range(6))}, {"hash_ids": list(range(5))}]
)
def test_more_ids_than_prompt_and_answer_have_are_an_error(read, changes):
    with pytest.raises(TraceFormatError, match="do not cover input_length=40"):
        read(block(**changes))


@pytest.mark.parametrize("ids", [[1, 2, 3], ["a", "b", "c"], ["0x1f", "0xA0", "ff"], [-1, 2**64 + 5, "1"]])
def test_ids_of_every_kind_match_by_what_they_are(read, ids):
    first, second, other = read(block(hash_ids=ids), block(hash_ids=ids), block(hash_ids=[*ids[:2], "else"]))
    assert first.keys.tolist() == second.keys.tolist()
    assert first.keys.tolist()[:2] == other.keys.tolist()[:2]
    assert first.keys[2] != other.keys[2]


def test_ids_and_lengths_have_other_names_too(read):
    plain, other = read(block(), {"block_hashes": [1, 2, 3], "num_prompt_tokens": 40, "block_size": 16})
    assert plain.keys.tolist() == other.keys.tolist()


def test_a_count_of_ids_that_fits_other_blocks_says_which(read):
    with pytest.raises(
        TraceFormatError, match=r"in blocks of 512; give 2, .*block_size \(blocks of 64 would fit\)"
    ):
        read({"input_length": 640, "hash_ids": list(range(10))})


def test_lines_of_different_blocks_are_an_error_that_names_the_line(read):
    with pytest.raises(TraceFormatError, match=r"line 2: blocks of 32 tokens, after lines with blocks of 16"):
        read(block(), block(block_size=32, hash_ids=[1, 2]))


def test_the_same_file_gives_the_same_keys_twice(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(block(hash_ids=["a", 2])) + "\n")
    trace = open_trace(path)
    assert list(trace) == list(trace)


def test_ids_of_any_kind_become_keys_and_different_ids_stay_different(read):
    ids = ["a", "b", 7, 2**63 - 1, 2**63, 2**64, 2**64 + 1, -7, 2**100]
    (request,) = read(block(input_length=16 * len(ids), hash_ids=ids))
    assert request.keys[2] == 7
    assert request.keys[3] == 2**63 - 1
    assert len(set(request.keys.tolist())) == len(ids)
    assert request.keys.min() >= 0


@given(st.lists(st.integers(-(2**70), 2**70) | st.text(st.characters(codec="utf-8")), max_size=20))
def test_equal_ids_have_equal_keys_and_others_have_not(ids):
    keys = as_keys(ids).tolist()
    spelled = [
        given if isinstance(given, int) and 0 <= given < 2**63 else ("hashed", str(given)) for given in ids
    ]
    for left, left_key in zip(spelled, keys, strict=True):
        for right, right_key in zip(spelled, keys, strict=True):
            assert (left == right) == (left_key == right_key)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_length": None}, "input_length is missing"),
        ({"input_length": 0}, "input_length=0; give a whole number of at least 1"),
        ({"input_length": -5}, "input_length=-5"),
        ({"input_length": 40.0}, r"input_length=40\.0"),
        ({"input_length": "40"}, "input_length='40'"),
        ({"input_length": True}, "input_length=True"),
        ({"input_length": 65}, "3 hash_ids do not cover input_length=65 in blocks of 16; give 5"),
        ({"input_length": 31}, "3 hash_ids do not cover input_length=31 in blocks of 16; give 2"),
        ({"input_length": 80}, "3 hash_ids do not cover input_length=80 in blocks of 16; give 5"),
        ({"block_size": 0}, "block_size=0"),
        ({"hash_ids": 5}, "hash_ids=5; give a list"),
        ({"hash_ids": None}, "hash_ids=None"),
        ({"hash_ids": [1, 2.5, 3]}, "an id is a fraction"),
        ({"hash_ids": [1, None, 3]}, "an id is a NoneType"),
        ({"hash_ids": [1, True, 3]}, "an id is a bool"),
        ({"hash_ids": [1, [2], 3]}, "an id is a list"),
        ({"output_length": -1}, "output_length=-1"),
        ({"timestamp": -1}, "timestamp=-1; give a finite time"),
        ({"timestamp_s": "soon"}, "timestamp_s='soon'"),
        ({"timestamp_s": [1]}, r"timestamp_s=\[1\]"),
        ({"timestamp_s": False}, "timestamp_s=False"),
        ({"session_id": [1]}, "session_id"),
        ({"cache_salt": 1.5}, "cache_salt"),
        ({"breakpoints": 8}, "breakpoints=8"),
        ({"breakpoints": [8, "9"]}, "breakpoints"),
        ({"breakpoints": [8, 41]}, "breakpoint 41"),
    ],
)
def test_a_malformed_line_is_an_error_that_names_it(read, changes, says):
    with pytest.raises(TraceFormatError, match=rf"log\.jsonl, line 2: .*{says}.*--skip-bad-lines"):
        read(block(), block(**changes))
