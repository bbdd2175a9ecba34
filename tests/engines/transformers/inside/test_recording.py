"""States from inside one call are those of calls that end there, in every family whose states are known."""

from itertools import pairwise

import pytest
import torch
from resuming import prompt, tiny_driver
from transformers import DynamicCache

from families import ALL_FAMILIES
from milepost.engines.distance import logits_distance
from milepost.engines.transformers.inside.comparison import state_distances
from milepost.engines.transformers.inside.recording import recording_of
from milepost.engines.transformers.inside.recurrences import Recurrence, in_pieces
from milepost.errors import UnsupportedModelError

NUM_TOKENS = 170
# At a chunk's end, at an odd place, next to it, and before the last token.
POSITIONS = (64, 101, 102, 169)
REASONS = {
    "zaya": "states that no known recurrence computes",
    "xlstm": "of a kind of its own",
    "rwkv": "of a kind of its own",
}
KNOWN = [family for family in ALL_FAMILIES if family not in REASONS]


def in_calls(driver, tokens, positions, start=0):
    live, states = driver.start(num_tokens=tokens.numel()), {}
    for begin, end in pairwise((0, *([start] if start else []), *positions)):
        driver.advance(live, tokens[begin:end])
        states[end] = driver.capture(live)
    return states, driver.advance(live, tokens[positions[-1] :])


def inside(driver, tokens, positions, start=0):
    live = driver.start(num_tokens=tokens.numel())
    if start:
        driver.advance(live, tokens[:start])
    logits, states = driver.advance_through(live, tokens[start:], positions)
    return live, states, logits


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("family", KNOWN)
def test_states_inside_are_those_of_calls_that_end_there(family, start):
    driver, tokens = tiny_driver(family, torch.float32), prompt(NUM_TOKENS)
    expected, expected_logits = in_calls(driver, tokens, POSITIONS, start)

    live, states, logits = inside(driver, tokens, POSITIONS, start)

    assert tuple(state.position for state in states) == POSITIONS
    for state in states:
        reference = expected[state.position]
        assert max(state_distances(state, reference).values(), default=0) < 1e-5
        assert state.num_bytes == reference.num_bytes
    assert logits_distance(logits, expected_logits) < 1e-5
    assert live.position == NUM_TOKENS


@pytest.mark.parametrize("family", KNOWN)
def test_a_prompt_resumed_from_one_goes_on_as_if_uninterrupted(family):
    driver, tokens = tiny_driver(family, torch.float32), prompt(NUM_TOKENS)
    live, states, logits = inside(driver, tokens, POSITIONS)

    def resumed(state, position):
        kv = driver.kv(live, 0, position)
        found = driver.restore(state, [kv], position=position, num_tokens=NUM_TOKENS)
        return driver.advance(found, tokens[position:])

    assert logits_distance(resumed(states[1], 101), logits) < 1e-5
    assert logits_distance(resumed(states[3], 169), logits) < 1e-5
    # The state of another token shows; glm5_next's counts its tokens, and others do not fit it at all.
    if states[3].num_bytes and family != "glm5_next":
        wrong = type(states[2])(169, states[2].frame, states[2].num_bytes)
        assert logits_distance(resumed(wrong, 169), logits) > 1e-3


@pytest.mark.parametrize("family", ["qwen3_5", "mamba2", "lfm2", "gpt_oss"])
def test_a_context_shorter_than_the_convolution_is_filled_with_zeros(family):
    driver, tokens = tiny_driver(family, torch.float32), prompt(9)
    expected, _ = in_calls(driver, tokens, (1, 2, 5))
    for state in inside(driver, tokens, (1, 2, 5))[1]:
        assert max(state_distances(state, expected[state.position]).values()) < 1e-5


@pytest.mark.parametrize("family", ["qwen3_5", "falcon_h1", "jamba", "minimax"])
def test_nothing_is_left_on_the_cache_or_the_model(family):
    driver, tokens = tiny_driver(family, torch.float32), prompt(NUM_TOKENS)
    before = {id(module): dict(vars(module)) for module in driver.model.modules()}
    live, _, _ = inside(driver, tokens, POSITIONS)
    assert {id(module): dict(vars(module)) for module in driver.model.modules()} == before
    assert not {"update", "update_conv_state", "update_recurrent_state"} & vars(live.cache).keys()


@pytest.mark.parametrize(("family", "reason"), REASONS.items())
def test_a_cache_that_is_not_all_known_is_refused(family, reason):
    driver = tiny_driver(family, torch.float32)
    with pytest.raises(UnsupportedModelError, match=reason):
        inside(driver, prompt(NUM_TOKENS), POSITIONS)


def test_a_recurrence_that_is_asked_for_no_state_is_left_alone():
    """As in a call without a cache, which records nothing."""
    driver, tokens = tiny_driver("mamba2", torch.float32), prompt(100)
    live = driver.start(num_tokens=100)
    with torch.inference_mode():
        whole = driver.model(tokens[None], use_cache=False).logits[0, -1]
    logits, _ = driver.advance_through(live, tokens, (64,))
    assert logits_distance(logits, whole) < 1e-5


def test_a_recurrence_over_other_tokens_is_left_alone():
    """As of a module beside the model's layers, which is called with tokens of its own."""
    calls = []

    def scan(steps, state=None):
        calls.append(steps.shape[1])
        return steps, steps.sum()

    recurrence = Recurrence(
        token_axes={"steps": 1}, output_axis=1, initial_state="state", asks_for_state=None
    )
    run = in_pieces(scan, recurrence)
    with recording_of(DynamicCache(), (2,), 5):
        run(torch.ones(1, 5))
        run(torch.ones(1, 4))
    run(torch.ones(1, 5))
    assert calls == [2, 3, 4, 5]
