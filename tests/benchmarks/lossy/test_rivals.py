"""Lossy states and replays on tiny models: what they keep, and when they are exact."""

import pytest
import torch
from benchmarks.lossy.divergence import measure_divergence
from benchmarks.lossy.models import FAMILIES
from benchmarks.lossy.prompts import random_prompts
from benchmarks.lossy.quantised_states import dequantised, quantised
from benchmarks.lossy.quantiser import Quantiser
from benchmarks.lossy.rivals import CONTROL, EXACT, rivals
from benchmarks.lossy.suffix_replay import advance_in_pieces, replayed_state

from families import tiny_model, tiny_prompt
from milepost.embedded import EMBEDDED
from milepost.engines.transformers.families import driver_for
from milepost.engines.transformers.frames import has_same_bits

PIECE = 64
TINY = [family for family in FAMILIES if family != EMBEDDED]


def prefix_of(family: str, num_tokens: int):
    driver = driver_for(tiny_model(family))
    tokens = tiny_prompt(num_tokens)[0]
    live = driver.start(num_tokens=num_tokens)
    advance_in_pieces(driver, live, tokens, piece_tokens=PIECE)
    return driver, tokens, driver.capture(live), [driver.kv(live, 0, num_tokens)]


@pytest.mark.parametrize("family", TINY)
def test_a_quantised_snapshot_has_other_recurrent_states_and_the_same_convolutions(family: str) -> None:
    _, _, state, _ = prefix_of(family, 128)
    kept = quantised(state, Quantiser(8))
    back = dequantised(kept, Quantiser(8))
    before, after = state.frame.layers, back.frame.layers
    convolutions = [(one.conv_states, other.conv_states) for one, other in zip(before, after, strict=True)
                    if hasattr(one, "conv_states")]  # fmt: skip
    assert convolutions
    assert all(has_same_bits(*pair) for pair in convolutions)
    has_recurrent_states = family != "lfm2"
    assert has_same_bits(state.frame, back.frame) is not has_recurrent_states
    assert bool(kept.kept) is has_recurrent_states
    assert (kept.num_bytes < state.num_bytes) is has_recurrent_states


def test_the_bytes_of_a_quantised_snapshot_are_those_of_its_codes_scales_and_convolutions() -> None:
    _, _, state, _ = prefix_of("qwen3_5", 128)
    recurrent, convolution = 3 * 4 * 16 * 24, 3 * 160 * 4 * 4
    assert state.num_bytes == recurrent * 4 + convolution
    scales = 3 * 4 * 16 * 4
    assert quantised(state, Quantiser(8)).num_bytes == recurrent + scales + convolution
    assert quantised(state, Quantiser(6)).num_bytes == recurrent * 3 // 4 + scales + convolution


@pytest.mark.parametrize("family", TINY)
def test_a_replay_that_reaches_the_start_is_exact_and_a_shorter_one_is_not(family: str) -> None:
    driver, tokens, state, kv = prefix_of(family, 256)

    def replayed(count: int) -> torch.Tensor:
        return replayed_state(driver, tokens, kv, num_replayed=count, piece_tokens=PIECE).frame

    assert has_same_bits(replayed(256), state.frame)
    assert has_same_bits(replayed(1_000), state.frame)
    assert not has_same_bits(replayed(64), state.frame)


def test_a_replay_leaves_what_it_replays_from_as_it_was() -> None:
    driver, tokens, _, kv = prefix_of("qwen3_5", 192)
    before = [piece.tensors[key].clone() for piece in kv for key in piece.tensors]
    replayed_state(driver, tokens, kv, num_replayed=64, piece_tokens=PIECE)
    assert has_same_bits(before, [piece.tensors[key] for piece in kv for key in piece.tensors])


def test_only_exact_states_are_exact_and_the_control_is_far_off() -> None:
    driver = driver_for(tiny_model("qwen3_5"))
    prompts = random_prompts(count=4, grid=64, vocabulary_size=driver.vocabulary_size, seed=3)
    found = measure_divergence(driver, prompts, rivals([16]), piece_tokens=PIECE, answer_tokens=4)
    exact, control = found.pop(EXACT), found.pop(CONTROL)
    assert (exact.num_prompts, exact.num_tokens) == (4, 16)
    assert (exact.num_inexact, exact.num_differing, exact.kl_most) == (0, 0, 0.0)
    assert all(each.num_inexact == 4 for each in found.values())
    assert found["int8"].kl_mean < found["6 bit"].kl_mean < found["replay 16"].kl_mean < control.kl_mean
    assert control.num_answers_differing == 4
