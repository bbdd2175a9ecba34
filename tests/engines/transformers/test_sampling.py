"""The next token: greedy, or drawn from a stream that belongs to one request alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milepost.engines.transformers.sampling import Sampler, Sampling
from milepost.errors import InvalidRequestError

LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0])


def draws(sampling: Sampling, count: int = 200, logits: torch.Tensor = LOGITS) -> list[int]:
    sampler = Sampler(sampling)
    return [sampler.draw(logits) for _ in range(count)]


def test_greedy_takes_the_likeliest_token_every_time():
    assert set(draws(Sampling())) == {1}


def test_equal_seeds_draw_equal_tokens_and_other_seeds_others():
    assert draws(Sampling(temperature=1.0, seed=5)) == draws(Sampling(temperature=1.0, seed=5))
    assert draws(Sampling(temperature=1.0, seed=5)) != draws(Sampling(temperature=1.0, seed=6))


def test_neither_other_requests_nor_the_global_stream_disturb_a_request():
    alone = draws(Sampling(temperature=1.0, seed=5), 20)
    one, other = Sampler(Sampling(temperature=1.0, seed=5)), Sampler(Sampling(temperature=1.0, seed=7))
    state = torch.get_rng_state()
    together = []
    for _ in range(20):
        together.append(one.draw(LOGITS))
        other.draw(LOGITS)
        torch.rand(3)
    assert together == alone
    torch.set_rng_state(state)


def test_drawing_leaves_the_global_stream_and_the_logits_alone():
    state, logits = torch.get_rng_state(), LOGITS.clone()
    draws(Sampling(temperature=0.7, top_k=3, top_p=0.9))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(logits, LOGITS)


def test_frequencies_follow_the_softmax():
    drawn = torch.bincount(torch.tensor(draws(Sampling(temperature=1.0), 4000)), minlength=5) / 4000
    assert torch.allclose(drawn, LOGITS.softmax(-1).float(), atol=0.03)


@pytest.mark.parametrize(("top_k", "allowed"), [(1, {1}), (2, {1, 2}), (100, {0, 1, 2, 3, 4})])
def test_top_k_draws_from_that_many(top_k, allowed):
    assert set(draws(Sampling(temperature=2.0, top_k=top_k), 600)) == allowed


@pytest.mark.parametrize(("top_p", "allowed"), [(0.01, {1}), (0.7, {1, 2}), (1.0, {0, 1, 2, 3, 4})])
def test_top_p_draws_from_the_fewest_that_hold_so_much(top_p, allowed):
    # Probabilities: 0.63, 0.23, 0.09, 0.03, 0.01.
    assert set(draws(Sampling(temperature=1.0, top_p=top_p), 1500)) == allowed


@settings(deadline=None)
@given(st.floats(0.0, 100.0), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_any_legal_temperature_draws_a_token(temperature, dtype):
    logits = torch.tensor([5.0, -1e4, 30.0, 2.5], dtype=dtype)
    assert Sampler(Sampling(temperature=temperature)).draw(logits) in range(4)


def test_the_lowest_temperatures_are_greedy():
    assert set(draws(Sampling(temperature=5e-324))) == set(draws(Sampling(temperature=1e-6))) == {1}


def test_a_whole_number_is_a_temperature_too():
    assert draws(Sampling(temperature=1)) == draws(Sampling(temperature=1.0))


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": 101.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_k": -5},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": float("nan")},
        {"seed": 2**64},
        {"seed": -(2**63) - 1},
    ],
)
def test_an_option_outside_its_rule_is_named(bad):
    (name,) = bad
    with pytest.raises(InvalidRequestError, match=f"{name}="):
        Sampling(**bad)


@pytest.mark.parametrize("seed", [2**64 - 1, -(2**63), 0])
def test_every_seed_of_64_bits_works(seed):
    assert Sampler(Sampling(temperature=1.0, seed=seed)).draw(LOGITS) in range(5)
