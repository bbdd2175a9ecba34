"""TensorRT-LLM: states where the operator says, KV of whole prompts."""

import pytest
from peer_replay import Replay

from milepost.errors import ConfigurationError
from milepost.policies import parse_policy

PLENTY = 1000


def test_states_lie_at_the_offsets_and_kv_goes_to_the_end():
    replay = Replay("tensorrt:start=32,end=16+48,every=80", capacity_blocks=PLENTY)
    replay.serve("abcdefghijkl")
    assert replay.states("abcdefghijkl") == [2, 5, 9, 10, 11]
    assert replay.kv("abcdefghijkl") == 12
    plain = Replay("offsets:start=32,end=16+48,every=80", capacity_blocks=PLENTY)
    plain.serve("abcdefghijkl")
    assert plain.states("abcdefghijkl") == [2, 5, 9, 10, 11]
    assert plain.kv("abcdefghijkl") == 11


def test_a_branch_is_stored_only_where_it_is_asked_for():
    words = ["aaaabbb", "aaaaccc", "aaaaddd"]
    assert Replay("tensorrt:end=0", capacity_blocks=PLENTY).run(words) == [0, 0, 0]
    assert Replay("tensorrt:end=0,branch=yes", capacity_blocks=PLENTY).run(words) == [0, 0, 4]
    assert Replay("tensorrt:end=0,branch=no", capacity_blocks=PLENTY).run(words) == [0, 0, 0]


def test_a_question_after_a_document_is_met_from_the_end():
    words = ["aaaaaapq", "aaaaaars", "aaaaaatu"]
    assert Replay("tensorrt:end=32", capacity_blocks=PLENTY).run(words) == [0, 6, 6]


def test_blocks_without_states_take_the_memory_of_others():
    # KV of whole prompts, 12 blocks and one state each, against KV up to the state after 2.
    words = ["abcdefghijkl", "mnopqrstuvwx", "abyz"]
    assert Replay("tensorrt:start=32", capacity_blocks=16).run(words) == [0, 0, 0]
    assert Replay("offsets:start=32", capacity_blocks=16).run(words) == [0, 0, 2]


@pytest.mark.parametrize(
    ("notation", "message"),
    [
        ("tensorrt", "no offsets"),
        ("tensorrt:branch=yes", "no offsets"),
        ("tensorrt:end=0,branch=maybe", "branch='maybe'.*write branch=yes"),
        ("tensorrt:start=0", "from_start=0.*at least 1"),
    ],
)
def test_what_turns_reuse_off_or_means_nothing_is_refused(notation, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_policy(notation)
