"""Chats, through OpenAI's own client."""

import openai
import pytest
from running import MODEL, open_engine

from milepost.server.dialects.chat import ChatBody

DOCUMENT = "The road goes on and on. " * 40
MESSAGES = [
    {"role": "system", "content": DOCUMENT},
    {"role": "user", "content": "Where does the road go?"},
]


def ask(client, messages=MESSAGES, **options):
    return client.chat.completions.create(
        **({"model": MODEL, "messages": messages, "max_tokens": 12, "temperature": 0} | options)
    )


def test_an_answer_is_what_the_engine_says(client):
    expected = open_engine(policy="none").generate(MESSAGES, max_new_tokens=12, temperature=0)
    answer = ask(client)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage.prompt_tokens == expected.report.num_tokens
    assert answer.usage.completion_tokens == len(expected.tokens)


def test_a_stream_adds_up_to_the_same_answer(client):
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_second_question_about_a_document_is_resumed(client):
    def details_of(question, salt):
        fields = {"cache_salt": salt, "include_recomputed": True}
        answer = ask(client, [MESSAGES[0], {"role": "user", "content": question}], extra_body=fields)
        details = answer.usage.prompt_tokens_details
        assert details.cached_tokens + sum(details.recomputed.values()) == answer.usage.prompt_tokens
        return details

    first = details_of("Does it end?", "one")
    assert first.cached_tokens == 0
    assert first.cache_write_tokens > 700
    second = details_of("Who walks on it?", "one")
    assert second.cached_tokens >= 700
    # Nothing crosses a salt: the same question is as new as the first one was.
    other = details_of("Who walks on it?", "two")
    assert other.cached_tokens == 0
    assert other.recomputed["unseen"] == sum(other.recomputed.values())


def test_several_answers_differ_and_their_prompt_is_computed_once(client):
    answer = ask(client, n=3, temperature=1.0, seed=5)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    alone = ask(client, temperature=1.0, seed=6)
    assert alone.choices[0].message.content == texts[1], "the second has the seed after the first one's"
    assert answer.usage.prompt_tokens == alone.usage.prompt_tokens


def test_several_answers_are_streamed_side_by_side(client):
    whole = ask(client, n=2, temperature=1.0, seed=5)
    texts = ["", ""]
    for chunk in ask(client, n=2, temperature=1.0, seed=5, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_log_probabilities_come_with_each_token(client):
    answer = ask(client, logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob == token.top_logprobs[0].logprob, "the likeliest was taken"
        assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
    streamed = [
        token
        for chunk in ask(client, logprobs=True, top_logprobs=2, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert [token.logprob for token in streamed] == [token.logprob for token in content]


def test_a_stop_string_ends_the_answer(client):
    whole = ask(client).choices[0].message.content
    stop = whole[3:5]
    stopped = ask(client, stop=[stop])
    assert stopped.choices[0].message.content == whole[: whole.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("option", "param"),
    [
        ({"extra_body": {"audio": {"voice": "x"}}}, "audio"),
        ({"extra_body": {"colour": "blue"}}, "colour"),
        ({"temperature": -1}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"n": 1000}, "n"),
        ({"logit_bias": {"5": 10}}, "logit_bias.5"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, option, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **option)
    assert refused.value.body["param"] == param
    assert param.split(".")[0] in refused.value.body["message"]


def test_a_model_of_another_name_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="'tiny'"):
        ask(client, model="gpt-5")


def test_a_prompt_longer_than_the_context_says_so(client):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, [{"role": "user", "content": "x" * 9000}])
    assert refused.value.body["code"] == "context_length_exceeded"


def test_every_field_of_the_package_is_served_or_refused_by_name():
    from openai.types.chat import completion_create_params as params

    known = params.CompletionCreateParamsBase.__annotations__ | {"stream": bool}
    assert known.keys() <= ChatBody.model_fields.keys()


@pytest.mark.parametrize("mark", ["prompt_cache_breakpoint", "cache_control"])
def test_four_cache_points_are_the_most(client, mark):
    part = {"type": "text", "text": "Hello. ", mark: {"type": "ephemeral"}}
    messages = [{"role": "system", "content": [part]}, {"role": "user", "content": [part] * 3}]
    assert ask(client, messages).choices[0].message.content
    messages[1]["content"].append(part)
    with pytest.raises(openai.BadRequestError, match="5 cache points") as caught:
        ask(client, messages)
    assert caught.value.param == f"messages.1.content.3.{mark}"
