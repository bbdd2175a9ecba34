"""vLLM: the junction at the third sighting, KV without states, one list of blocks."""

import random

import pytest
from block_lists import OneList
from peer_replay import Replay

PLENTY = 1000


def test_a_junction_is_stored_by_the_second_prompt_and_used_by_the_third():
    words = ["aaaabb", "aaaacc", "aaaadd"]
    replay = Replay("vllm", capacity_blocks=PLENTY)
    assert replay.run(words) == [0, 0, 4]
    assert replay.states("aaaacc") == [4, 5]
    assert Replay("tail", capacity_blocks=PLENTY).run(words) == [0, 0, 0]


def test_a_junction_is_seen_only_where_the_kv_still_matches():
    # The long prompt takes all memory, KV of the first one included.
    words = ["aaaabb", "xxxxxxxxxxxx", "aaaacc", "aaaadd", "aaaaee"]
    assert Replay("vllm", capacity_blocks=14).run(words[:3] + words[1:2] + words[3:]) == [0, 0, 0, 0, 0, 0]
    assert Replay("vllm", capacity_blocks=14).run(words) == [0, 0, 0, 0, 4]
    # Whoever remembers prompts without their KV knows it one prompt earlier.
    assert Replay("tail+junction", capacity_blocks=14).run(words) == [0, 0, 0, 4, 4]


def test_kv_is_kept_to_the_end_of_a_prompt_though_no_state_needs_it():
    vllm, tail = (Replay(name, capacity_blocks=PLENTY) for name in ("vllm", "tail"))
    for replay in (vllm, tail):
        replay.serve("aaaaaa")
    assert (vllm.kv("aaaaaa"), tail.kv("aaaaaa")) == (6, 5)


def test_the_oldest_prompt_loses_its_blocks_one_by_one_from_the_end():
    replay = Replay("vllm", capacity_blocks=16)
    replay.serve("aaaaaa")  # 6 blocks and a state of 2 after 5
    replay.serve("bbbbbb")  # as much again
    assert replay.cache.statistics().kv_bytes == 12 * 16
    replay.serve("ccc")  # needs 3 and 2: the last block and the state behind the fifth, then two more blocks
    assert (replay.kv("aaaaaa"), replay.states("aaaaaa")) == (3, [])
    assert (replay.kv("bbbbbb"), replay.states("bbbbbb")) == (6, [5])


def test_a_state_that_is_passed_grows_old_while_its_kv_is_refreshed():
    replay = Replay("vllm", capacity_blocks=16)
    replay.serve("aaa")  # a state after 2
    replay.serve("aaaaaa")  # resumes after 2; states after 3, where the KV has ended, and after 5
    replay.serve("aaaaaaa")  # resumes after 5, a state after 6: 7 blocks and four states
    assert replay.states("aaaaaaa") == [2, 3, 5, 6]
    replay.serve("bbb")  # 3 blocks and a state: too much by 4
    assert replay.states("aaaaaaa") == [5, 6]
    assert replay.kv("aaaaaaa") == 7


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_a_plain_list_of_blocks(seed):
    rng = random.Random(seed)
    capacity, state_blocks = rng.choice([(30, 3), (45, 5), (80, 2), (120, 8)])
    replay = Replay("vllm", capacity_blocks=capacity, state_blocks=state_blocks)
    naive = OneList(capacity, state_blocks)
    words: list[str] = []
    for number in range(200):
        before = rng.choice(words) if words and rng.random() < 0.7 else ""
        start = before[: rng.randint(0, len(before))]
        # The last block is the prompt's own, so no prompt is the beginning of another.
        word = start[:8] + "".join(rng.choices("ab", k=rng.randint(1, 5))) + chr(1000 + number)
        words.append(word)
        assert (number, replay.serve(word)) == (number, naive.serve(word))
        assert (number, replay.kv(word)) == (number, naive.kv(word))
