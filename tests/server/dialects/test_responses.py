"""OpenAI's newer API, through OpenAI's own client."""

import openai
import pytest
from running import MODEL
from scripted import scripted

from milepost.server.dialects.responses.body import ResponsesBody
from speech_templates import JSON, SECTIONS

TOOLS = [
    {
        "type": "function",
        "name": "read",
        "description": "Read a file.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
    }
]
ARGUMENTS = '{"path":"a.py"}'
CALL = f'<tool_call>\n{{"name": "read", "arguments": {ARGUMENTS}}}\n</tool_call>'
SCRIPT = {
    "Hello": "Good day.",
    "Think": "<think>\nwell\n</think>\n\nSo it is.",
    "Read a.py": "<think>\nwhich file?\n</think>\n\nI look.\n" + CALL,
    "Read both": CALL + "\n" + CALL.replace("a.py", "b.py"),
    "one line": "<think>\nshort\n</think>\n\nOne line.",
    "Break": "<tool_call>\nhm\n</tool_call>",
}


@pytest.fixture(scope="module")
def server():
    with scripted(JSON) as started:
        started.script.update(SCRIPT)
        yield started


def ask(client, given, **options):
    return client.responses.create(**({"model": MODEL, "input": given, "tools": TOOLS} | options))


def shown(response):
    """Return what an answer says, without ids."""
    return [
        {name: value for name, value in item.to_dict().items() if name not in ("id", "call_id")}
        for item in response.output
    ]


def test_an_answer_is_items(client):
    answer = ask(client, "Read a.py", instructions="Be short.", metadata={"a": "b"})
    reasoning, message, call = answer.output
    assert reasoning.content[0].text == "which file?"
    assert message.content[0].text == answer.output_text == "I look."
    assert (call.name, call.arguments) == ("read", ARGUMENTS), "as the model wrote it"
    assert answer.status == "completed"
    assert answer.instructions == "Be short."
    assert answer.metadata == {"a": "b"}
    assert answer.store is False
    assert answer.tools[0].name == "read"
    assert answer.usage.output_tokens_details.reasoning_tokens == len("which file?")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize("question", sorted(SCRIPT))
def test_a_stream_tells_the_same_answer_event_by_event(client, question):
    whole = ask(client, question)
    events = list(ask(client, question, stream=True))

    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert shown(events[-1].response) == shown(whole)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.to_dict() for item in done] == [item.to_dict() for item in events[-1].response.output]
    added = [event.item for event in events if event.type == "response.output_item.added"]
    assert [item.id for item in added] == [item.id for item in done]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    arguments = [event.arguments for event in events if event.type == "response.function_call_arguments.done"]
    assert arguments == [item.arguments for item in whole.output if item.type == "function_call"]


def test_the_clients_own_helper_follows_the_stream(client):
    with client.responses.stream(model=MODEL, input="Read a.py", tools=TOOLS) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == "I look."


def test_several_calls_are_several_items_or_the_first_one(client):
    def paths(answer):
        return [item.arguments for item in answer.output if item.type == "function_call"]

    assert paths(ask(client, "Read both")) == [ARGUMENTS, ARGUMENTS.replace("a.py", "b.py")]
    assert paths(ask(client, "Read both", parallel_tool_calls=False)) == [ARGUMENTS]


def test_an_answer_that_is_cut_off_is_incomplete(client):
    answer = ask(client, "Think", max_output_tokens=12)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"
    events = list(ask(client, "Think", max_output_tokens=12, stream=True))
    assert events[-1].type == "response.incomplete"


def test_a_loop_of_tools_repeats_what_was_generated(client, server):
    """Items go back as they came; what is computed again is the tool's result and what the grid leaves."""
    salt = {"extra_body": {"cache_salt": "loop", "include_recomputed": True}}
    given = [{"role": "user", "content": "A long story. " * 40 + "Read a.py"}]
    first = ask(client, given, include=["reasoning.encrypted_content"], **salt)
    call = first.output[-1]
    given += [item.to_dict() for item in first.output]
    given.append({"type": "function_call_output", "call_id": call.call_id, "output": "one line"})
    second = ask(client, given, **salt)
    assert second.output_text == "One line."
    usage = second.usage.input_tokens_details
    assert usage.cached_tokens >= first.usage.input_tokens - 16
    # Nothing of the answer is lost to a changed letter: the prompt has it, token for token.
    after = "<|im_end|>\n<|im_start|>tool\none line<|im_end|>\n<|im_start|>assistant\n"
    size = len(server.tokenizer.encode(after, add_special_tokens=False))
    assert second.usage.input_tokens == first.usage.total_tokens + size

    sealed_alone = [dict(item) for item in given]
    sealed_alone[1].pop("content")
    assert ask(client, sealed_alone, **salt).usage.input_tokens == second.usage.input_tokens


def test_instructions_and_what_developers_say_are_one_beginning(client):
    given = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    one = ask(client, "Hello", instructions="Be short.\n\nBe kind.")
    assert ask(client, given, instructions="Be short.").usage.input_tokens == one.usage.input_tokens


def test_a_model_that_names_its_calls_is_asked_by_those_names():
    written = (
        "<think></think><|tool_calls_section_begin|><|tool_call_begin|>functions.read:0"
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    )
    with scripted(SECTIONS) as server:
        server.script["Read"] = written
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            assert ask(client, "Read").output[-1].call_id == "functions.read:0"


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": []}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"extra_body": {"colour": "blue"}}, "colour"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, option, name):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **({"given": "Hello"} | option) if "input" not in option else {"given": option["input"]})
    assert refused.value.body["param"].startswith(name)
    assert name.split(".")[0] in refused.value.body["message"]


def test_that_no_answers_are_kept_is_said_where_one_is_asked_for(client):
    with pytest.raises(openai.BadRequestError, match="send the conversation with each request"):
        ask(client, "Hello", previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError, match="none are kept"):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.NotFoundError, match="none are kept"):
        client.responses.delete("resp_1")


def test_four_cache_points_are_the_most(client):
    part = {"type": "input_text", "text": "Hello", "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert ask(client, [{"role": "user", "content": [part] * 4}]).output_text == "Good day."
    with pytest.raises(openai.BadRequestError, match="5 cache points"):
        ask(client, [{"role": "user", "content": [part] * 5}])


def test_what_agents_send_and_nothing_depends_on_is_accepted(client):
    answer = ask(
        client,
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}],
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="a session",
        reasoning={"effort": "high", "summary": "auto"},
        service_tier="auto",
        safety_identifier="somebody",
        stream_options={"include_obfuscation": False},
        tool_choice="auto",
    )
    assert answer.output_text == "Good day."


def test_every_field_of_the_package_is_known():
    from openai.types.responses import response_create_params as params

    known = params.ResponseCreateParamsBase.__annotations__.keys() | {"stream"}
    assert known <= ResponsesBody.model_fields.keys()
