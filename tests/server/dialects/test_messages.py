"""Anthropic's API, through Anthropic's own client."""

import json

import anthropic
import httpx
import pytest
from running import MODEL
from scripted import scripted

from milepost.server.dialects.messages.body import CountBody, MessagesBody
from speech_templates import XML

TOOLS = [
    {
        "name": "read",
        "description": "Read a file.",
        "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    }
]
CALL = "<tool_call>\n<function=read>\n<parameter=path>\na.py\n</parameter>\n</function>\n</tool_call>"
SCRIPT = {
    "Hello": "<think>\n\n</think>\n\nGood day.",
    "Think": "<think>\nwell\n</think>\n\nSo it is.",
    "Read a.py": "<think>\nwhich file?\n</think>\n\nI look." + "\n\n" + CALL,
    "Read both": "<think>\n\n</think>\n\n" + CALL + "\n" + CALL.replace("a.py", "b.py"),
    "one line": "<think>\nshort\n</think>\n\nOne line.",
    "Break": "<think>\n\n</think>\n\n<tool_call>\n<function=read>\nhm\n</function>\n</tool_call>",
}


@pytest.fixture(scope="module")
def server():
    with scripted(XML) as started:
        started.script.update(SCRIPT)
        yield started


@pytest.fixture
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


def ask(client, content, **options):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    return client.messages.create(**({"model": MODEL, "messages": messages, "max_tokens": 400} | options))


def told(client, content, **options):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    given = {"model": MODEL, "messages": messages, "max_tokens": 400} | options
    with client.messages.stream(**given) as stream:
        events = list(stream)
        return events, stream.get_final_message()


def test_an_answer_is_a_message_of_blocks(client):
    answer = ask(client, "Think")
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "well"
    assert answer.content[1].text == "So it is."
    assert answer.stop_reason == "end_turn"
    assert answer.model == MODEL


def test_the_usage_adds_up_to_the_prompt(client):
    first = ask(client, "Hello", system="A road. " * 60, extra_body={"cache_salt": "usage"}).usage
    again = ask(client, "Hello", system="A road. " * 60, extra_body={"cache_salt": "usage"}).usage
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert first.cache_read_input_tokens == 0
    assert first.cache_creation_input_tokens > 400
    assert again.cache_read_input_tokens >= first.cache_creation_input_tokens - 16
    assert sum(getattr(first, part) for part in parts) == sum(getattr(again, part) for part in parts)
    counted = client.messages.count_tokens(
        model=MODEL, system="A road. " * 60, messages=[{"role": "user", "content": "Hello"}]
    )
    assert counted.input_tokens == sum(getattr(first, part) for part in parts)


@pytest.mark.parametrize("question", ["Think", "Hello", "Read a.py", "Read both", "Break"])
def test_a_stream_adds_up_to_the_same_message(client, question):
    whole = ask(client, question, tools=TOOLS)
    events, streamed = told(client, question, tools=TOOLS)

    def content(message):
        return [
            {name: value for name, value in block.to_dict().items() if name != "id"}
            for block in message.content
        ]

    assert content(streamed) == content(whole)
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(whole.content)


def test_a_call_is_a_block_and_ends_the_turn(client):
    answer = ask(client, "Read a.py", tools=TOOLS)
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.content[2].name == "read"
    assert answer.content[2].input == {"path": "a.py"}
    assert answer.content[2].id.startswith("toolu_")
    assert answer.stop_reason == "tool_use"


def test_several_calls_are_several_blocks_or_the_first_one(client):
    answer = ask(client, "Read both", tools=TOOLS)
    assert [block.input["path"] for block in answer.content] == ["a.py", "b.py"]
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    alone = ask(client, "Read both", tools=TOOLS, tool_choice=choice)
    assert [block.input["path"] for block in alone.content] == ["a.py"]
    assert alone.stop_reason == "tool_use"


def test_a_call_that_cannot_be_read_is_text(client):
    answer = ask(client, "Break", tools=TOOLS)
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == SCRIPT["Break"].partition("</think>\n\n")[2]
    assert answer.stop_reason == "end_turn"


def test_without_tools_or_with_none_to_choose_marks_are_text(client):
    assert [block.type for block in ask(client, "Read both").content] == ["text"]
    off = ask(client, "Read both", tools=TOOLS, tool_choice={"type": "none"})
    assert [block.type for block in off.content] == ["text"]


def test_an_answer_that_is_cut_off_says_so(client):
    answer = ask(client, "Think", max_tokens=3)
    assert answer.stop_reason == "max_tokens"
    assert answer.content[0].thinking == "wel"


def test_a_stop_sequence_is_named(client):
    answer = ask(client, "Think", stop_sequences=["never", " it"])
    assert answer.content[-1].text == "So"
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " it")
    whole = ask(client, "Think", stop_sequences=["never"])
    assert (whole.stop_reason, whole.stop_sequence) == ("end_turn", None)


def test_no_tokens_warm_the_cache_and_say_nothing(client):
    salt = {"cache_salt": "warm"}
    prompt = {"system": "Another road. " * 40, "extra_body": salt}
    warmed = ask(client, "Hello", max_tokens=0, **prompt)
    assert (warmed.content, warmed.usage.output_tokens) == ([], 0)
    assert ask(client, "Hello", **prompt).usage.cache_read_input_tokens > 500


def test_an_answer_that_was_begun_goes_on(client):
    begun = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good"}]
    assert ask(client, begun).content[0].text == " day."


def test_thinking_is_the_templates_switch(client, server):
    server.script["Switch"] = "<think>\n\n</think>\n\nNo thoughts."
    answer = ask(client, "Switch", thinking={"type": "disabled"})
    assert [block.type for block in answer.content] == ["text"]
    counts = [
        client.messages.count_tokens(
            model=MODEL, messages=[{"role": "user", "content": "Switch"}], thinking=thinking
        ).input_tokens
        for thinking in ({"type": "enabled", "budget_tokens": 1024}, {"type": "disabled"})
    ]
    # <think> and a line end are begun; or thoughts are begun and ended.
    assert counts[1] - counts[0] == len("\n</think>\n\n")


def test_thoughts_that_are_not_shown_come_back_by_their_signature(client):
    thinking = {"type": "adaptive", "display": "omitted"}
    hidden = ask(client, "Read a.py", tools=TOOLS, thinking=thinking)
    assert hidden.content[0].thinking == ""
    shown = ask(client, "Read a.py", tools=TOOLS)

    def next_prompt(answer, **changed):
        content = [block.to_dict() for block in answer.content]
        content[0] |= changed
        result = {"type": "tool_result", "tool_use_id": content[2]["id"], "content": "one line"}
        return client.messages.count_tokens(
            model=MODEL,
            tools=TOOLS,
            messages=[
                {"role": "user", "content": "Read a.py"},
                {"role": "assistant", "content": content},
                {"role": "user", "content": [result]},
            ],
        ).input_tokens

    assert next_prompt(hidden) == next_prompt(shown)
    assert next_prompt(shown, thinking="which file? ") == next_prompt(shown)
    # What another server signed is taken as it is shown.
    assert next_prompt(shown, signature="EqQBCgIYAhIM", thinking="") < next_prompt(shown)
    with pytest.raises(anthropic.BadRequestError, match="as they came"):
        next_prompt(shown, thinking="which one?")


def test_the_line_that_changes_with_each_request_is_no_part_of_the_prompt(client):
    def reused(nonce):
        block = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2; cch={nonce};"}
        system = [block, {"type": "text", "text": "A long road. " * 40}]
        return ask(client, "Hello", system=system, extra_body={"cache_salt": "billing"}).usage

    assert reused("00001").cache_read_input_tokens == 0
    assert reused("00002").cache_read_input_tokens > 400
    in_one = "x-anthropic-billing-header: cch=3;\n" + "A long road. " * 40
    as_text = ask(client, "Hello", system=in_one, extra_body={"cache_salt": "billing"})
    assert as_text.usage.cache_read_input_tokens > 400


def marked(text, **more):
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", **more}}


def test_four_cache_points_are_the_most(client):
    system = [marked("One."), marked("Two.", ttl="1h")]
    tools = [TOOLS[0] | {"cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "user", "content": [marked("Hello")]}]
    assert ask(client, messages, system=system, tools=tools).content
    with pytest.raises(anthropic.BadRequestError, match="5 cache points"):
        ask(
            client,
            [{"role": "user", "content": [marked("Oh."), marked("Hello")]}],
            system=system,
            tools=tools,
        )
    extra = {"cache_control": {"type": "ephemeral"}}
    with pytest.raises(anthropic.BadRequestError, match="5 cache points"):
        ask(client, messages, system=system, tools=tools, extra_body=extra)
    with pytest.raises(anthropic.BadRequestError, match="ttl"):
        ask(client, [{"role": "user", "content": [marked("Hello", ttl="2h")]}])


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "read"}}, "tool_choice"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config"),
        ({"extra_body": {"container": "c"}}, "container"),
        ({"extra_body": {"mcp_servers": [{"type": "url"}]}}, "mcp_servers"),
        ({"extra_body": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}}, "edits"),
        ({"extra_body": {"colour": "blue"}}, "colour"),
        ({"extra_body": {"temperature": -1}}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]}, ""),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_use", "id": "x", "name": "y", "input": {}}]}
                ]
            },
            "",
        ),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, option, name):
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(client, "Hello", **option)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert name in refused.value.body["error"]["message"]


def test_what_agents_send_and_nothing_depends_on_is_accepted(client):
    answer = ask(
        client,
        "Hello",
        metadata={"user_id": "somebody"},
        service_tier="auto",
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        extra_body={
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "temperature": 1,
            "mcp_servers": [],
            "diagnostics": None,
        },
        extra_headers={"anthropic-beta": "something-2031-01-01", "anthropic-version": "2023-06-01"},
        extra_query={"beta": "true"},
    )
    assert answer.content[0].text == "Good day."


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(anthropic.NotFoundError) as missing:
        ask(client, "Hello", model="claude-of-another-server")
    assert missing.value.body["error"]["type"] == "not_found_error"


def test_a_key_may_come_as_anthropic_sends_it():
    with scripted(XML, api_keys=["a-key-of-some-length"]) as server:
        server.script.update(SCRIPT)
        with anthropic.Anthropic(base_url=server.url, api_key="a-key-of-some-length") as known:
            assert ask(known, "Hello").content
        unknown = anthropic.Anthropic(base_url=server.url, api_key="another-key")
        with unknown, pytest.raises(anthropic.AuthenticationError) as refused:
            ask(unknown, "Hello")
        assert refused.value.body["error"]["type"] == "authentication_error"


def test_the_events_on_the_wire_are_named_and_a_ping_is_among_them(server):
    body = {
        "model": MODEL,
        "max_tokens": 20,
        "stream": True,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    answer = httpx.post(f"{server.url}/v1/messages", json=body)
    events = [event.split("\n") for event in answer.text.strip().split("\n\n")]
    assert all(line[0] == f"event: {json.loads(line[1][6:])['type']}" for line in events)
    assert events[1][0] == "event: ping"


def test_every_field_of_the_package_is_known():
    from anthropic.types import message_count_tokens_params as counted
    from anthropic.types import message_create_params as params
    from anthropic.types.beta import message_create_params as beta

    plain = params.MessageCreateParamsBase.__annotations__
    # betas go into a header.
    assert plain.keys() | {"stream"} <= MessagesBody.model_fields.keys()
    assert beta.MessageCreateParamsBase.__annotations__.keys() - {"betas"} <= MessagesBody.model_fields.keys()
    assert counted.MessageCountTokensParams.__annotations__.keys() <= CountBody.model_fields.keys()
