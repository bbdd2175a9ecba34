"""Several answers in one call of a real model: what strict promises, what fast keeps, and what is said."""

import logging
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_engine import branching_prompts, open_engine, without_cache

from families import tiny_model, tiny_prompt
from milepost.engines.base import OneByOne
from milepost.engines.transformers import row_choice as row_choice_module
from milepost.errors import ConfigurationError

torch.set_num_threads(1)

PROMPTS = branching_prompts(7)
OPTIONS = {"max_new_tokens": 12, "ignore_end_token": True, "logprobs": 0}


def bits(completion) -> tuple:
    """Return an answer's tokens and the log-probability of each, which no two computations share by luck."""
    return completion.tokens, tuple(each.logprob for each in completion.logprobs)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request):
    return tiny_model("qwen3_5").to(getattr(torch, request.param))


def test_in_strict_an_answer_hangs_on_its_prompt_and_the_number_of_rows_alone(model):
    alone = open_engine(model, decode_rows=4)
    expected = [bits(alone.generate(prompt, **OPTIONS)) for prompt in PROMPTS]
    for order in (1, -1):
        together = open_engine(model, decode_rows=4).generate_many(PROMPTS[::order], **OPTIONS)
        assert [bits(each) for each in together][::order] == expected


@pytest.mark.parametrize("family", ["qwen3_5", "gemma3"])
def test_a_row_beside_far_longer_ones_has_the_bits_that_it_has_beside_none(family):
    model = tiny_model(family)
    prompts = [
        tiny_prompt(length, seed=length)[0].numpy() for length in (100, 250, 289, 330, 385, 506, 600, 1030)
    ]
    alone = open_engine(model, decode_rows=4, policy="none")
    expected = [bits(alone.generate(prompt, **OPTIONS)) for prompt in prompts]
    for order in (1, -1):
        engine = open_engine(model, decode_rows=4, policy="none")
        together = engine.generate_many(prompts[::order], **OPTIONS)
        assert [bits(each) for each in together][::order] == expected


def test_the_control_another_number_of_rows_gives_other_bits_in_float32():
    model = tiny_model("qwen3_5")
    one, four = (
        [bits(each) for each in open_engine(model, decode_rows=rows).generate_many(PROMPTS, **OPTIONS)]
        for rows in (1, 4)
    )
    assert [tokens for tokens, _ in one] == [tokens for tokens, _ in four]
    assert one != four


def test_without_rows_strict_is_one_by_one_as_it_was(model):
    engine = open_engine(model)
    assert isinstance(engine._rows, OneByOne)
    together = [bits(each) for each in engine.generate_many(PROMPTS, **OPTIONS)]
    assert together == [bits(each) for each in without_cache(model, PROMPTS, **OPTIONS)]


def test_answers_that_end_at_different_times_leave_the_others_alone(model):
    engine = open_engine(model, decode_rows=4)
    generations = [
        engine.submit(prompt, **OPTIONS | {"max_new_tokens": count})
        for prompt, count in zip(PROMPTS, (1, 3, 12, 7, 12, 2, 9), strict=False)
    ]
    generations[4].close()
    while engine.step():
        pass
    alone = open_engine(model, decode_rows=4)
    for generation, prompt in zip(generations, PROMPTS, strict=False):
        if not generation.is_closed:
            tokens, logprobs = bits(generation.completion())
            expected = bits(alone.generate(prompt, **OPTIONS))
            assert (tokens, logprobs) == tuple(each[: len(tokens)] for each in expected)


@pytest.mark.parametrize("family", ["qwen3_5", "falcon_h1", "mamba2", "lfm2"])
def test_in_fast_a_chat_goes_on_from_the_end_of_an_answer_made_in_company(family):
    model = tiny_model(family)
    engine = open_engine(model, numerics="fast", policy="learned", decode_rows=4)
    first = engine.generate_many(PROMPTS[:4], **OPTIONS)
    turns = [
        np.concatenate((prompt, answer.tokens, tiny_prompt(20, seed=number)[0].numpy()))
        for number, (prompt, answer) in enumerate(zip(PROMPTS, first, strict=False))
    ]
    second = engine.generate_many(turns, **OPTIONS)
    for turn, answer, cold in zip(turns, second, without_cache(model, turns, **OPTIONS), strict=True):
        assert answer.report.num_tokens - answer.report.reused == 21, "the new message, and the last token"
        assert answer.tokens == cold.tokens
        assert answer.report.num_tokens == turn.size


def test_a_model_that_rows_are_not_right_for_is_served_one_by_one_and_that_is_said(caplog, monkeypatch):
    model = tiny_model("qwen3_5")
    upstream = row_choice_module.measure_rows

    def swapped(driver, count, *, is_fixed):
        report = upstream(driver, count, is_fixed=is_fixed)
        return type(report)(report.family, count, is_fixed, refusal="rows differ")

    monkeypatch.setattr(row_choice_module, "measure_rows", swapped)
    with caplog.at_level(logging.WARNING, logger="milepost"):
        engine = open_engine(model, decode_rows=4)
        engine.sibling(capacity="1MiB", policy="none")
    assert isinstance(engine._rows, OneByOne)
    said = [record.message for record in caplog.records if "one by one" in record.message]
    assert said == ["qwen3_5_text: answers are computed one by one: rows differ"], "once per model"


@pytest.mark.parametrize("rows", [0, -1, 1.5, "four", True])
def test_a_number_of_rows_that_is_none_is_refused(rows):
    with pytest.raises(ConfigurationError, match="decode_rows="):
        open_engine(tiny_model("qwen3_5"), decode_rows=rows)


def test_streams_advance_together(model):
    engine = open_engine(model, decode_rows=4)
    streams = [engine.stream(prompt, **OPTIONS) for prompt in PROMPTS[:3]]
    rounds = list(zip(*streams, strict=True))
    assert len(rounds) == 12
    assert all(earlier != later for earlier, later in pairwise(rounds))
