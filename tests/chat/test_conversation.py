"""Messages to tokens: as the model's template writes them, with nothing left out in silence."""

import pytest

from chat_tokenizer import CHATML, KNOWN_ROLES, NEEDS_USER, ONLY_PARTS, WRITES_BOS, chat_tokenizer
from milepost.chat.conversation import Conversation
from milepost.chat.messages import read_messages
from milepost.chat.prompt_tokenizer import PromptTokenizer
from milepost.errors import InvalidRequestError

CHAT = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hé </s> <|im_end|> you"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "why"},
]
TOOLS = [{"type": "function", "function": {"name": "look"}}]


def conversation(messages, template=CHATML, **options):
    return Conversation(PromptTokenizer(chat_tokenizer(template)), read_messages(messages), **options)


@pytest.mark.parametrize("template", [CHATML, WRITES_BOS, NEEDS_USER, KNOWN_ROLES])
@pytest.mark.parametrize("continues", [False, True])
def test_the_tokens_are_those_that_transformers_makes(template, continues):
    messages = CHAT[:3] if continues else CHAT
    tokens, breakpoints = conversation(messages, template, continue_final_message=continues).encoded()
    expected = chat_tokenizer(template).apply_chat_template(
        messages,
        add_generation_prompt=not continues,
        continue_final_message=continues,
        return_dict=False,
    )
    assert tokens == expected
    assert breakpoints
    assert all(0 < position <= len(tokens) for position in breakpoints)


def test_an_answer_that_is_continued_ends_with_its_text():
    assert conversation(CHAT[:3], continue_final_message=True).text.endswith("<|im_start|>assistant\nyes")


@pytest.mark.parametrize("text", ["", " ", "so "])
def test_an_answer_may_have_to_be_begun_or_end_in_a_blank(text):
    messages = [*CHAT, {"role": "assistant", "content": text}]
    tokens, _ = conversation(messages, continue_final_message=True).encoded()
    assert tokens == chat_tokenizer().apply_chat_template(
        messages, continue_final_message=True, return_dict=False
    )


def test_calls_of_tools_are_nothing_to_continue():
    calls = [{"type": "function", "function": {"name": "look", "arguments": {}}}]
    messages = [*CHAT, {"role": "assistant", "content": None, "tool_calls": calls}]
    with pytest.raises(InvalidRequestError, match="calls tools and has no text"):
        conversation(messages, continue_final_message=True)


def test_what_a_client_writes_as_null_is_not_there():
    template = (
        "{% for m in messages %}{{ m.content }}{% if m.tool_calls is defined %}CALLS{% endif %}{% endfor %}"
    )
    for nothing in (None, []):
        messages = [{"role": "assistant", "content": "yes", "tool_calls": nothing, "refusal": None}]
        assert conversation(messages, template).text == "yes"


def test_parts_of_a_text_are_the_text():
    whole = [{"role": "user", "content": "one two"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": " two"}]}]
    for template in (CHATML, ONLY_PARTS):
        assert conversation(whole, template).encoded() == conversation(parts, template).encoded()


@pytest.mark.parametrize(("template", "role"), [(CHATML, "developer"), (KNOWN_ROLES, "system")])
def test_a_developer_is_the_system_where_the_template_knows_no_developers(template, role):
    messages = [{"role": "developer", "content": "be kind"}, *CHAT[1:]]
    assert conversation(messages, template).text.startswith(f"<|im_start|>{role}\nbe kind<|im_end|>")


def test_a_role_that_the_template_leaves_out_is_an_error_and_one_that_it_writes_is_not():
    messages = [*CHAT, {"role": "critic", "content": "no"}]
    with pytest.raises(InvalidRequestError, match="leaves out messages of role 'critic'"):
        conversation(messages, KNOWN_ROLES)
    assert "<|im_start|>critic\nno<|im_end|>" in conversation(messages, CHATML).text


def test_a_template_that_refuses_says_so_in_its_own_words():
    with pytest.raises(InvalidRequestError, match=r"refuses these messages: no user query"):
        conversation(CHAT[:1], NEEDS_USER)
    with pytest.raises(InvalidRequestError, match=r"refuses these messages: no user query"):
        conversation([{"role": "critic", "content": "no"}], NEEDS_USER)


def test_tools_that_the_template_does_not_know_are_noticed():
    assert not conversation(CHAT, CHATML, tools=TOOLS).ignores_tools()
    assert conversation(CHAT, KNOWN_ROLES, tools=TOOLS).ignores_tools()
    assert not conversation(CHAT, KNOWN_ROLES).ignores_tools()
    needs_tools = "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}" + KNOWN_ROLES
    assert not conversation(CHAT, needs_tools, tools=TOOLS).ignores_tools()


def pins(messages, template=CHATML, **options):
    """Return what lies before each pin, with its seconds."""
    found = conversation(messages, template, **options)
    encoded = found.encode(with_pins=True)
    tokenizer = chat_tokenizer(template)
    return {tokenizer.decode(encoded.tokens[:at])[-12:]: seconds for at, seconds in encoded.pins}


def test_a_cache_point_is_where_its_part_or_its_message_ends():
    control = {"cache_control": {"type": "ephemeral"}}
    parts = [{"type": "text", "text": "be kind"} | control, {"type": "text", "text": " and brief"} | control]
    messages = [{"role": "system", "content": parts}, CHAT[1], CHAT[2] | control, CHAT[3]]

    assert pins(messages) == {"stem\nbe kind": 300.0, "f<|im_end|>\n": 300.0, "s<|im_end|>\n": 300.0}


@pytest.mark.parametrize(
    ("point", "seconds"),
    [
        ({"cache_control": {"type": "ephemeral"}}, 300.0),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, 3600.0),
        ({"prompt_cache_breakpoint": {"mode": "explicit"}}, 1800.0),
        ({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}, 43_200.0),
        ({"cache_control": None}, None),
        ({}, None),
    ],
)
def test_each_api_has_its_own_time_where_none_is_given(point, seconds):
    messages = [{"role": "user", "content": [{"type": "text", "text": "why"} | point]}]
    assert list(pins(messages).values()) == ([] if seconds is None else [seconds])


def test_a_cache_point_on_calls_of_tools_is_where_their_message_ends():
    calls = [{"type": "function", "function": {"name": "look", "arguments": {}}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls, "cache_control": {"ttl": "1h"}}
    [before] = pins([*CHAT, message, CHAT[1]]).items()
    assert before == ("t\n<|im_end|>\n"[-12:], 3600.0)


def test_a_template_never_sees_a_cache_point():
    template = CHATML + "{% for m in messages %}{{ m.cache_control is defined }}{% endfor %}"
    marked = [message | {"cache_control": {"type": "ephemeral"}} for message in CHAT]
    assert conversation(marked, template).text == conversation(CHAT, template).text
    assert "True" not in conversation(marked, template).text


@pytest.mark.parametrize("ttl", ["2h", 300, ["1h"]])
def test_a_time_that_no_api_has_is_refused(ttl):
    with pytest.raises(InvalidRequestError, match="give 5m, 30m, 1h, 12h"):
        pins([CHAT[1] | {"cache_control": {"type": "ephemeral", "ttl": ttl}}])
    # A log is read all the same.
    assert conversation([CHAT[1] | {"cache_control": {"ttl": ttl}}]).encoded()
