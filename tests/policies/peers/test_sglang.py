"""SGLang: states in a pool of their own, no KV without a state, every state on the path refreshed."""

import pytest
from peer_replay import Replay

from milepost.errors import ConfigurationError
from milepost.policies import parse_policy

HALF = "sglang:share=0.5"


def test_a_branch_point_is_stored_by_the_second_prompt_and_used_by_the_third():
    assert Replay(HALF, capacity_blocks=1000).run(["aaaabb", "aaaacc", "aaaadd"]) == [0, 0, 4]


def test_kv_ends_at_the_last_state():
    replay = Replay(HALF, capacity_blocks=1000)
    replay.serve("aaaaaa")
    assert replay.kv("aaaaaa") == 5


def test_neither_pool_lends_to_the_other():
    # 20 blocks for states, 10 states in all, and 20 for KV: four prompts of 5 fill the KV while 12 blocks of
    # the states' stay empty.
    words = ["aaaaaa", "bbbbbb", "cccccc", "dddddd", "eeeeee"]
    replay, shared = (Replay(policy, capacity_blocks=40) for policy in (HALF, "tail"))
    for word in words:
        replay.serve(word)
        shared.serve(word)
    assert [replay.kv(word) for word in words] == [0, 5, 5, 5, 5]
    assert [shared.kv(word) for word in words] == [5, 5, 5, 5, 5]


def test_short_of_states_the_oldest_goes_and_those_behind_it_keep_their_kv():
    replay = Replay("sglang:share=0.2", capacity_blocks=40)  # four states
    for word in ("aaa", "aaaaaa", "bbb", "ccc"):
        replay.serve(word)
    # Serving the second prompt has refreshed the state after 2, the deepest last.
    assert replay.states("aaaaaa") == [2, 5]
    replay.serve("ddd")
    assert (replay.states("aaaaaa"), replay.kv("aaaaaa")) == ([5], 5)
    replay.serve("eee")
    assert (replay.states("aaaaaa"), replay.kv("aaaaaa")) == ([], 0)


def test_short_of_kv_the_oldest_leaf_goes_though_an_older_state_frees_none():
    replay = Replay(HALF, capacity_blocks=20)  # five states and 10 blocks of KV
    for word in ("aaa", "aaaaaa", "bbbbb"):
        replay.serve(word)
    assert replay.cache.statistics().kv_bytes == 9 * 16
    replay.serve("ccc")
    # The state after 2 is older, and evicting it would free nothing.
    assert (replay.states("aaaaaa"), replay.kv("aaaaaa")) == ([2], 2)
    assert replay.kv("bbbbb") == 4


def test_a_state_that_is_passed_stays_fresh_unlike_with_plain_recency():
    words = ["aaa", "aaaaaa", "xxx", "aaaaaabb", "yyy"]
    refreshed = Replay("sglang:share=0.2", capacity_blocks=40)  # four states
    plain = Replay("tail", capacity_blocks=20)
    for replay in (refreshed, plain):
        assert replay.run(words) == [0, 2, 0, 5, 0]
    assert (refreshed.states("aaaaaabb"), refreshed.states("xxx")) == ([2, 5, 7], [])
    assert (plain.states("aaaaaabb"), plain.states("xxx")) == ([5, 7], [2])


def test_chunks_leave_states_at_their_ends():
    replay = Replay("sglang:share=0.5,chunk=64", capacity_blocks=1000)
    replay.serve("abcdefghijkl")
    assert replay.states("abcdefghijkl") == [4, 8, 11]
    replay.serve("abcdefghijkzyxwvut")
    assert replay.states("abcdefghijkzyxwvut") == [4, 8, 11, 15, 17]


@pytest.mark.parametrize(
    ("notation", "message"),
    [("sglang:1.5", "state_share=1.5"), ("sglang:chunk=0", "chunk=0"), ("sglang:share=x", "is not a number")],
)
def test_options_out_of_range_are_refused(notation, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_policy(notation)


def test_the_default_share_is_nine_bytes_of_states_to_ten_of_kv():
    assert parse_policy("sglang").state_share == pytest.approx(9 / 19)
