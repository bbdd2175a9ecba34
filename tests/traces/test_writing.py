"""What is written reads back as it was."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.errors import InvalidRequestError
from milepost.traces import TraceRequest, open_trace, write_trace


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst"])
@pytest.mark.parametrize("source", ["synthetic:chat,requests=50", "synthetic:agents,requests=9,block=1"])
def test_a_trace_survives_the_round_trip_and_is_written_the_same_way_twice(tmp_path, name, source):
    requests = list(open_trace(source))
    assert write_trace(requests, tmp_path / name) == len(requests)
    assert list(open_trace(tmp_path / name)) == requests
    again = tmp_path / f"again-{name}"
    write_trace(requests, again)
    assert again.read_bytes() == (tmp_path / name).read_bytes()


text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@st.composite
def requests_of_blocks(draw) -> TraceRequest:
    num_tokens = draw(st.integers(1, 60))
    count = -(-num_tokens // 8)
    return TraceRequest(
        keys=np.array(draw(st.lists(st.integers(0, 2**63 - 1), min_size=count, max_size=count))),
        key_tokens=8,
        num_tokens=num_tokens,
        request_id=draw(text),
        output_tokens=draw(st.none() | st.integers(0, 10**6)),
        arrival_seconds=draw(st.none() | st.floats(0, 1e10)),
        session=draw(st.none() | text),
        tenant=draw(st.just("") | text),
        breakpoints=tuple(sorted(draw(st.sets(st.integers(1, num_tokens))))),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(requests=st.lists(requests_of_blocks(), min_size=1, max_size=5))
def test_every_field_survives_the_round_trip(tmp_path, requests):
    write_trace(requests, tmp_path / "out.jsonl")
    assert list(open_trace(tmp_path / "out.jsonl")) == requests


def test_a_failure_leaves_what_was_there_before(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before")

    def failing():
        yield from open_trace("synthetic:chat,requests=3")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_trace(failing(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]
    assert path.read_text() == "before"


def test_a_trace_of_nothing_or_of_two_block_sizes_is_refused(tmp_path):
    with pytest.raises(InvalidRequestError, match="no request to write"):
        write_trace([], tmp_path / "out.jsonl")
    mixed = [*open_trace("synthetic:chat,requests=1"), *open_trace("synthetic:chat,requests=1,block=32")]
    with pytest.raises(InvalidRequestError, match="blocks of 32 tokens, the others of 16"):
        write_trace(mixed, tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
