"""Texts that go on, through OpenAI's own client."""

import openai
import pytest
from running import MODEL, open_engine

from milepost.server.dialects.completions import CompletionBody

PROMPT = "It was a dark and stormy night; the rain fell in torrents. " * 4


def complete(client, prompt=PROMPT, **options):
    return client.completions.create(
        **({"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0} | options)
    )


def test_an_answer_is_what_the_engine_says(client):
    engine = open_engine(policy="none")
    expected = engine.generate(PROMPT, max_new_tokens=8, temperature=0)
    assert complete(client).choices[0].text == expected.text
    assert complete(client, engine.encode(PROMPT).tolist()).choices[0].text == expected.text


def test_several_prompts_have_their_answers_in_order(client):
    both = complete(client, [PROMPT, "Once upon a time"], n=2, temperature=1.0)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = complete(client, "Once upon a time", n=2, temperature=1.0)
    assert [choice.text for choice in both.choices[2:]] == [choice.text for choice in alone.choices]
    assert both.usage.prompt_tokens == len(PROMPT) + len("Once upon a time")


def test_an_echo_stands_before_the_answer(client):
    whole = complete(client).choices[0].text
    assert complete(client, echo=True).choices[0].text == PROMPT + whole
    streamed = complete(client, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == PROMPT + whole


def test_an_echo_has_the_log_probabilities_of_the_prompt(client):
    alone = complete(client, echo=True, logprobs=1, max_tokens=0).choices[0]
    assert alone.text == PROMPT
    logprobs = alone.logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(PROMPT)
    assert logprobs.token_logprobs[0] is None
    assert logprobs.text_offset == list(range(len(PROMPT)))
    engine = open_engine(policy="none")
    ids = engine.encode(PROMPT)
    (score,) = engine.score(ids[:1], [ids[1:]])
    assert tuple(logprobs.token_logprobs[1:]) == score.token_logprobs
    for token, top in zip(logprobs.token_logprobs[1:], logprobs.top_logprobs[1:], strict=True):
        assert max(top.values()) >= token
    with_answer = complete(client, echo=True, logprobs=1, max_tokens=2).choices[0]
    assert with_answer.logprobs.token_logprobs[: len(PROMPT)] == logprobs.token_logprobs
    assert len(with_answer.logprobs.tokens) == len(PROMPT) + 2


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"echo": True, "logprobs": 5}, "logprobs"),
        ({"echo": True, "logprobs": 1, "stream": True}, "stream"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [-4]}, "prompt"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(client, options, param):
    with pytest.raises(openai.BadRequestError) as refused:
        complete(client, **options)
    assert refused.value.body["param"].startswith(param)


def test_a_token_that_the_model_does_not_know_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="272"):
        complete(client, [100_000])


def test_every_field_of_the_package_is_served_or_refused_by_name():
    from openai.types import completion_create_params as params

    known = params.CompletionCreateParamsBase.__annotations__ | {"stream": bool}
    assert known.keys() <= CompletionBody.model_fields.keys()
