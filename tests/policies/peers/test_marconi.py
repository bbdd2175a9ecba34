"""Marconi: what is evicted follows recency and what a byte saves, and alpha follows the traffic."""

import numpy as np
import pytest
from peer_replay import Replay

from milepost.errors import ConfigurationError
from milepost.policies import parse_policy
from milepost.policies.peers.marconi import MarconiEviction, marconi


def alpha_of(replay: Replay) -> float:
    assert isinstance(replay.policy.eviction, MarconiEviction)
    return replay.policy.eviction.alpha


def test_it_admits_the_last_state_and_at_the_second_sighting_the_branch():
    replay = Replay("marconi", capacity_blocks=1000)
    assert replay.run(["aaaabb", "aaaacc", "aaaadd"]) == [0, 0, 4]
    assert replay.states("aaaacc") == [4, 5]
    assert replay.kv("aaaacc") == 5


def test_efficiency_keeps_a_long_prompt_that_recency_would_drop():
    # 12 and 2 blocks of KV with a state of 4 each save 12 and 2 blocks: 0.75 and 0.33 of a block per block.
    words = ["a" * 13, "bbb", "ccc"]
    by_recency, by_efficiency = (
        Replay(f"marconi:{alpha}", capacity_blocks=27, state_blocks=4) for alpha in (0, 2)
    )
    by_recency.run(words)
    by_efficiency.run(words)
    assert [by_recency.kv(word) for word in words] == [0, 2, 2]
    assert [by_efficiency.kv(word) for word in words] == [12, 0, 2]


def test_a_state_with_several_behind_it_is_no_candidate():
    words = ["aaaabb", "aaaacc", "aaaabb", "xxx"]
    marconi_replay, plain = (Replay(p, capacity_blocks=14) for p in ("marconi:alpha=0", "tail+junction"))
    for replay in (marconi_replay, plain):
        replay.run(words)
    # The junction after 4 has not been used, but two states lie behind it.
    assert marconi_replay.states("aaaabb") == [4, 5]
    assert marconi_replay.states("aaaacc") == [4]
    assert plain.states("aaaabb") == [5]


def test_an_evicted_state_hands_its_last_use_to_the_one_behind():
    # The state after 2 serves the third prompt, then goes: it saves least and frees most.
    replay = Replay("marconi:alpha=2", capacity_blocks=1000)
    replay.run(["aaa", "aaaaaaaaa", "aaa"])
    store = replay.cache._store
    (deeper,) = [c for n in store.tree.nodes() for c in n.checkpoints if c.position == 8 * 16]
    (shallow,) = [c for n in store.tree.nodes() for c in n.checkpoints if c.position == 2 * 16]
    assert (shallow.last_used, deeper.last_used) == (3, 2)
    store._eviction.note_eviction(shallow, 0.0)
    assert deeper.last_used == 3


def test_alpha_is_0_until_the_window_is_full_then_what_reuses_most_in_a_replay():
    # One long document is asked about now and then between many short prompts that never come again. The
    # first eviction comes with the third request, so the window is full with the fifteenth.
    filler = [chr(1000 + number) * 3 for number in range(40)]
    document = "d" * 13
    words = [document, *filler[:4], document, *filler[4:8], document, *filler[8:12], document, *filler[12:20]]
    replay = Replay("marconi", capacity_blocks=27, state_blocks=4)
    alphas = []
    for word in words:
        replay.serve(word)
        alphas.append(alpha_of(replay))
    tuned_at = next(number for number, alpha in enumerate(alphas) if alpha)
    assert alphas[:tuned_at] == [0.0] * tuned_at
    assert len(set(alphas[tuned_at:])) == 1
    assert tuned_at == 14
    fixed = Replay("marconi:alpha=0", capacity_blocks=27, state_blocks=4)
    fixed.run(words)
    assert alpha_of(fixed) == 0.0


def test_the_window_is_five_times_what_the_cache_took_before_the_first_eviction():
    replay = Replay("marconi", capacity_blocks=27, state_blocks=4)
    for number in range(40):
        replay.serve(chr(1000 + number) * 3)
    eviction = replay.policy.eviction
    # Four prompts of 6 blocks fit in 27; the fifth evicts.
    assert eviction._window == 25
    assert eviction._history == []


def test_utilities_are_normalised_over_the_candidates():
    eviction = MarconiEviction(alpha=0.5)
    cells = eviction.scales.size
    least = np.full(cells, np.inf)
    eviction._tick = 11
    least[[100, 200, 300]] = [1.0, 6.0, 10.0]
    worths = eviction.worths(least)
    recency = [(1 / 10 - 1 / 10) / 0.9, (1 / 5 - 1 / 10) / 0.9, 1.0]
    steps = [2.0 ** ((cell - 300) / 16) for cell in (100, 200, 300)]
    efficiency = [(step - steps[0]) / (steps[2] - steps[0]) for step in steps]
    assert worths[[100, 200, 300]] == pytest.approx(
        [r + 0.5 * e for r, e in zip(recency, efficiency, strict=True)]
    )
    assert np.isinf(np.delete(worths, [100, 200, 300])).all()


@pytest.mark.parametrize("alpha", ["-1", "nan", "inf", "much"])
def test_a_weight_that_is_none_is_refused(alpha):
    with pytest.raises(ConfigurationError, match="alpha="):
        parse_policy(f"marconi:alpha={alpha}")


def test_only_a_policy_that_tunes_itself_asks_for_replays():
    assert marconi().attach is not None
    assert marconi(alpha=0.5).attach is None
