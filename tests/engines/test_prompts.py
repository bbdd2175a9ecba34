"""A prompt is the same prompt, as messages, as their text, as token ids and in a log."""

import json

import pytest
import torch
from characters import Characters

from chat_tokenizer import (
    CALLS,
    CHATML,
    KNOWN_ROLES,
    NEEDS_USER,
    WRITES_BOS,
    chat_tokenizer,
    write_chat_tokenizer,
)
from families import tiny_model
from milepost.engines.engine import Engine
from milepost.errors import InvalidRequestError
from milepost.traces import open_trace

torch.set_num_threads(1)

CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hé, you"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "why"},
]
CHARACTERS = Characters()
TOOLS = [{"type": "function", "function": {"name": "look"}}]


@pytest.fixture(scope="module")
def model():
    model = tiny_model("qwen3_5")
    model.resize_token_embeddings(260, mean_resizing=False)
    return model


@pytest.fixture(scope="module")
def engine_of(model):
    """An engine whose tokenizer has this chat template; None stands for one without any."""
    engines = {}

    def engine(template, tokenizer=None):
        if (template, tokenizer) not in engines:
            engines[template, tokenizer] = Engine.open(
                model,
                capacity="64MiB",
                segment_tokens=64,
                tokenizer=tokenizer or chat_tokenizer(template),
            )
        return engines[template, tokenizer]

    return engine


@pytest.fixture(scope="module")
def wordless(model):
    """An engine without a tokenizer."""
    return Engine.open(model, capacity="64MiB", segment_tokens=64)


@pytest.mark.parametrize("template", [CHATML, WRITES_BOS, NEEDS_USER])
def test_messages_their_text_and_their_tokens_are_one_prompt(engine_of, template):
    engine = engine_of(template)
    tokens = chat_tokenizer(template).apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert engine.encode(CHAT).tolist() == tokens
    options = {"max_new_tokens": 4, "ignore_end_token": True}
    answer = engine.generate(CHAT, **options)
    for same in (tokens, torch.tensor(tokens), tuple(CHAT)):
        assert engine.generate(same, **options).prompt_logits_digest == answer.prompt_logits_digest
    assert engine.generate_many([CHAT, tokens], **options)[0].tokens == answer.tokens
    streamed = [event.token for event in engine.stream(CHAT, **options)]
    assert tuple(streamed) == answer.tokens
    assert engine.submit(CHAT, **options).request.tokens.tolist() == tokens
    engine.close()


def test_a_rendered_text_is_not_given_what_it_begins_with(engine_of):
    engine, tokenizer = engine_of(WRITES_BOS), chat_tokenizer(WRITES_BOS)
    text = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert engine.encode(text).tolist() == engine.encode(CHAT).tolist()
    assert engine.encode("hi").tolist() == tokenizer.encode("hi") == [tokenizer.bos_token_id, *engine.encode(
        "<s>hi"
    ).tolist()[1:]]  # fmt: skip


@pytest.mark.parametrize("template", [CHATML, WRITES_BOS, CALLS])
def test_a_logged_prompt_is_the_served_one_with_the_same_breakpoints(engine_of, tmp_path, template):
    folder = write_chat_tokenizer(tmp_path / "tokenizer", template)
    bodies = [
        {"messages": CHAT},
        {"messages": CHAT, "chat_template_kwargs": {"unused": 1}},
        {"prompt": "once upon"},
        {"prompt": "<s>once upon"},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    engine = engine_of(template)
    for body, logged in zip(bodies, open_trace(log, tokenizer=folder), strict=True):
        options = {"chat_template_kwargs": body["chat_template_kwargs"]} if len(body) > 1 else {}
        request = engine.submit(body.get("messages") or body["prompt"], **options).request
        assert request.tokens.tolist() == logged.keys.tolist()
        assert request.breakpoints == logged.breakpoints
    engine.close()


def test_message_ends_reach_the_cache_and_are_joined_by_the_requests_own(engine_of):
    engine = engine_of(CHATML)
    ends = engine.submit(CHAT).request.breakpoints
    assert len(ends) == 4
    assert engine.submit(CHAT, breakpoints=[5]).request.breakpoints == (5, *ends)
    engine.close()


def test_an_answer_goes_on_where_the_last_message_is_the_assistants(engine_of):
    engine, tokenizer = engine_of(CHATML), chat_tokenizer(CHATML)

    def text(**options):
        return tokenizer.decode(engine.submit(CHAT[:3], **options).request.tokens.tolist())

    assert text().endswith("<|im_start|>assistant\nyes")
    assert text(continue_final_message=False).endswith("yes<|im_end|>\n<|im_start|>assistant\n")
    engine.close()


def test_tools_and_options_reach_the_template(engine_of):
    shouting = "{% for m in messages %}{{ m.content | upper if loud else m.content }}{% endfor %}"
    engine = engine_of(shouting)
    loud = engine.submit(CHAT[1:2], chat_template_kwargs={"loud": True}).request.tokens
    assert chat_tokenizer().decode(loud.tolist()) == "HÉ, YOU"
    with pytest.raises(InvalidRequestError, match="no place for tools"):
        engine.generate(CHAT, tools=TOOLS)
    with_tools = engine_of(CHATML).submit(CHAT, tools=TOOLS).request.tokens
    assert chat_tokenizer().decode(with_tools.tolist()).startswith('tools [{"type": "function"')


def test_tool_calls_need_no_content(engine_of):
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "door"}'}}
    messages = [CHAT[1], {"role": "assistant", "content": None, "tool_calls": [call]}, CHAT[3]]
    tokens = engine_of(CALLS).encode(messages)
    assert "assistant\n(at=door)<|im_end|>" in chat_tokenizer().decode(tokens.tolist())


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"content": "hi"}], "message 0, .* has no role"),
        ([{"role": "", "content": "hi"}], "has no role"),
        ([{"role": 5, "content": "hi"}], "has no role"),
        ([*CHAT, "hi"], "message 4, 'hi', is no mapping"),
        ([{"role": "user"}], "neither content nor tool_calls"),
        ([{"role": "user", "content": None}], "neither content nor tool_calls"),
        ([{"role": "user", "content": 5}], "neither a text nor a list of parts"),
        ([{"role": "user", "content": [5]}], "neither a text nor an object"),
        ([{"role": "user", "content": [{"type": "text"}]}], "has no text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "part of type 'image_url'"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "part of type 'input_audio'"),
        ([{"role": "system", "content": "a"}], "refuses these messages: no user query"),
        ([{"role": "user", "content": "a\ud800"}], "half of a surrogate pair"),
    ],
)
def test_malformed_messages_are_refused_by_name(engine_of, messages, says):
    engine = engine_of(NEEDS_USER)
    with pytest.raises(InvalidRequestError, match=says):
        engine.generate(messages)
    assert not engine.step()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": {"name": "look"}}, "give a list of tools"),
        ({"tools": "look"}, "give a list of tools"),
        ({"chat_template_kwargs": "loud"}, "give options of the template by name"),
        ({"chat_template_kwargs": {"tokenize": True}}, "no variable of a template"),
        ({"continue_final_message": "yes"}, "give True or False"),
    ],
)
def test_malformed_options_of_a_chat_are_refused_by_name(engine_of, options, says):
    with pytest.raises(InvalidRequestError, match=says):
        engine_of(CHATML).generate(CHAT, **options)


def test_roles_that_a_template_leaves_out_are_an_error(engine_of):
    with pytest.raises(InvalidRequestError, match="leaves out messages of role 'critic'"):
        engine_of(KNOWN_ROLES).generate([*CHAT, {"role": "critic", "content": "no"}])


def test_a_model_without_a_chat_template_says_what_to_do(engine_of, wordless):
    for engine, says in (
        (wordless, "has no tokenizer"),
        (engine_of(None), "a tokenizer without a chat template"),
        (engine_of(None, CHARACTERS), "a tokenizer without a chat template"),
    ):
        with pytest.raises(InvalidRequestError, match=says):
            engine.generate(CHAT)


def test_messages_alone_are_not_several_prompts(engine_of):
    with pytest.raises(InvalidRequestError, match="one object with 'role', 'content'"):
        engine_of(CHATML).generate_many(CHAT)


def test_a_text_goes_through_a_plain_tokenizer_as_it_is(engine_of, wordless):
    engine = engine_of(None, CHARACTERS)
    assert engine.encode("the fox").tolist() == list(b"the fox")
    with pytest.raises(InvalidRequestError, match=r"'\\ud800' at position 3, half of a surrogate pair"):
        engine.generate("abc\ud800")
    for prompt, options in (("text", {}), ([1], {"stop": "."})):
        with pytest.raises(InvalidRequestError, match="tokenizer"):
            wordless.generate(prompt, **options)
    assert wordless.generate([1, 2], max_new_tokens=3).text == ""
