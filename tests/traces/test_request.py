"""A request of a trace holds together, or is refused."""

import numpy as np
import pytest

from milepost.errors import InvalidRequestError
from milepost.traces import TraceRequest


def request(**changes) -> TraceRequest:
    return TraceRequest(
        **{"keys": np.array([5, 6, 7]), "key_tokens": 16, "num_tokens": 40, "request_id": "r"} | changes
    )


def test_keys_cannot_be_written_through_the_request_or_behind_its_back():
    mine = np.array([5, 6, 7])
    made = request(keys=mine)
    mine[0] = 9
    assert made.keys.tolist() == [5, 6, 7]
    with pytest.raises(ValueError, match="read-only"):
        made.keys[0] = 1


def test_keys_that_nobody_can_write_are_not_copied():
    mine = np.array([5, 6, 7])
    mine.flags.writeable = False
    assert request(keys=mine).keys is mine


def test_requests_are_equal_where_all_they_say_is():
    assert request() == request()
    assert request() != request(keys=np.array([5, 6, 8]))
    assert request() != request(tenant="a")
    assert request() != "request"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keys": [5, 6, 7]}, "int64 array"),
        ({"keys": np.array([5.0, 6.0, 7.0])}, "int64 array"),
        ({"keys": np.array([[5, 6, 7]])}, "int64 array"),
        ({"keys": np.array([], dtype=np.int64), "num_tokens": 0}, "num_tokens=0"),
        ({"key_tokens": 0}, "key_tokens=0"),
        ({"num_tokens": 49}, r"3 keys of 16 tokens do not cover num_tokens=49; give 4"),
        ({"num_tokens": 32}, r"do not cover num_tokens=32; give 2"),
        ({"keys": np.array([5, -6, 7])}, "key -6 is negative"),
        ({"output_tokens": -1}, "output_tokens=-1"),
        ({"arrival_seconds": float("nan")}, "arrival_seconds=nan"),
        ({"breakpoints": (0,)}, "breakpoint 0 after 0"),
        ({"breakpoints": (8, 8)}, "breakpoint 8 after 8"),
        ({"breakpoints": (41,)}, "breakpoint 41"),
    ],
)
def test_what_does_not_hold_together_is_refused(changes, says):
    with pytest.raises(InvalidRequestError, match=says):
        request(**changes)
