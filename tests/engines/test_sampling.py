"""The next token: the likeliest, or drawn from a stream that belongs to one request alone."""

import math

import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from milepost.engines.sampling import Sampler, Sampling
from milepost.errors import InvalidRequestError
from milepost.tokens import as_tokens

LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0])
PROMPT = as_tokens([4, 4, 4])


def sampler(*processors, prompt=PROMPT, **options):
    return Sampler(Sampling(processors=LogitsProcessorList(processors), **options), prompt=prompt)


def draws(*processors, count=200, logits=LOGITS, **options):
    drawing = sampler(*processors, **({"draws": True} | options))
    return [drawing.draw(logits)[0] for _ in range(count)]


def test_without_drawing_it_is_the_likeliest_token_every_time():
    assert set(draws(draws=False)) == {1}


def test_equal_seeds_draw_equal_tokens_and_other_seeds_others():
    assert draws(seed=5) == draws(seed=5)
    assert draws(seed=5) != draws(seed=6)


@pytest.mark.parametrize("seed", [2**64 - 1, -(2**63), 0])
def test_every_seed_of_64_bits_works(seed):
    assert draws(seed=seed, count=1)[0] in range(5)


def test_neither_other_requests_nor_the_global_stream_disturb_a_request():
    alone = draws(seed=5, count=20)
    one, other = sampler(draws=True, seed=5), sampler(draws=True, seed=7)
    state = torch.get_rng_state()
    together = []
    for _ in range(20):
        together.append(one.draw(LOGITS)[0])
        other.draw(LOGITS)
        torch.rand(3)
    assert together == alone
    torch.set_rng_state(state)


def test_drawing_leaves_the_global_stream_and_the_logits_alone():
    class Spoils(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores.mul_(2)

    state, logits = torch.get_rng_state(), LOGITS.clone()
    draws(Spoils(), TemperatureLogitsWarper(0.7), TopKLogitsWarper(3), logits=logits)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(logits, LOGITS)


def test_frequencies_follow_the_softmax():
    drawn = torch.bincount(torch.tensor(draws(count=4000)), minlength=5) / 4000
    assert torch.allclose(drawn, LOGITS.softmax(-1).float(), atol=0.03)


@pytest.mark.parametrize(
    ("processor", "allowed"),
    [
        (TopKLogitsWarper(2), {1, 2}),
        (TopPLogitsWarper(0.7), {1, 2}),
        (SuppressTokensLogitsProcessor([1, 2]), {0, 3, 4}),
    ],
)
def test_what_processors_forbid_is_never_drawn(processor, allowed):
    assert set(draws(processor, count=1500)) == allowed


def test_processors_see_the_prompt_and_each_token_of_the_answer():
    seen = []

    class Looks(LogitsProcessor):
        def __call__(self, input_ids, scores):
            seen.append(input_ids.tolist())
            return scores

    tokens = draws(Looks(), count=6)
    assert seen == [[[4, 4, 4, *tokens[:number]]] for number in range(6)]


def test_a_long_answer_keeps_its_history_whole():
    tokens = draws(RepetitionPenaltyLogitsProcessor(1.5), count=50, prompt=as_tokens([3]))
    looking = sampler(RepetitionPenaltyLogitsProcessor(1.5), draws=True, prompt=as_tokens([3]))
    assert [looking.draw(LOGITS)[0] for _ in range(50)] == tokens
    assert looking._history[0, : looking._length].tolist() == [3, *tokens]


def test_where_nothing_is_left_to_choose_by_the_request_is_told():
    with pytest.raises(InvalidRequestError, match="every one is suppressed"):
        draws(SuppressTokensLogitsProcessor(list(range(5))), draws=False)
    with pytest.raises(InvalidRequestError, match="every one is suppressed"):
        draws(SuppressTokensLogitsProcessor(list(range(5))))
    for draw in (True, False):
        with pytest.raises(InvalidRequestError, match="logit is nan"):
            draws(logits=torch.tensor([0.0, math.nan]), draws=draw)
    with pytest.raises(InvalidRequestError, match="logit is inf"):
        draws(logits=torch.tensor([0.0, math.inf]))
    assert draws(logits=torch.tensor([0.0, math.inf]), draws=False, count=1) == [1]


@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_log_probabilities_are_the_models_own_whatever_processors_do(number):
    token, logprobs = sampler(
        SuppressTokensLogitsProcessor([1]), TemperatureLogitsWarper(0.1), num_logprobs=number
    ).draw(LOGITS)
    expected = LOGITS.log_softmax(-1)
    assert token == logprobs.token == 2
    assert logprobs.logprob == pytest.approx(float(expected[2]))
    order = [1, 2, 3, 0, 4][:number]
    assert [top for top, _ in logprobs.top] == order
    assert [value for _, value in logprobs.top] == pytest.approx(expected[order].tolist())


def test_without_being_asked_for_there_are_no_log_probabilities():
    assert sampler().draw(LOGITS)[1] is None
