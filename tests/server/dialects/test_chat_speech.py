"""Reasoning and calls of tools in chats, through OpenAI's own client."""

import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import ValidationError
from running import MODEL
from scripted import scripted

from speech_templates import JSON, TOOLS

ARGUMENTS = '{"path":"a.py",  "lines" : 3}'
CALL = f'<tool_call>\n{{"name": "read", "arguments": {ARGUMENTS}}}\n</tool_call>'
SCRIPT = {
    "Hello": "Good day.",
    "Read a.py": "<think>\nwhich file?\n\n</think>\n\nI look.\n" + CALL,
    "Read both": CALL + "\n" + CALL.replace("a.py", "b.py"),
    "one line": "<think>\nshort\n</think>\n\nOne line.",
    "indented": "<think>\nTwo.\n</think>\n\n    return 2\n",
    "Break": "<tool_call>\nhm\n</tool_call>",
}


@pytest.fixture(scope="module")
def server():
    with scripted(JSON) as started:
        started.script.update(SCRIPT)
        yield started


def ask(client, content, **options):
    messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
    given = {"model": MODEL, "messages": messages, "tools": TOOLS} | options
    return client.chat.completions.create(
        **{name: value for name, value in given.items() if value is not None}
    )


def without_ids(calls):
    return [call.function.to_dict() for call in calls or []]


def test_reasoning_text_and_calls_are_fields_of_the_message(client):
    [choice] = ask(client, "Read a.py").choices
    assert choice.message.reasoning_content == "which file?\n"
    assert choice.message.content == "I look."
    assert without_ids(choice.message.tool_calls) == [{"name": "read", "arguments": ARGUMENTS}]
    assert choice.finish_reason == "tool_calls"
    plain = ask(client, "Hello").choices[0]
    assert "reasoning_content" not in plain.message.to_dict()
    assert plain.finish_reason == "stop"


def test_the_usage_says_how_much_was_reasoning(client):
    details = ask(client, "Read a.py").usage.completion_tokens_details
    assert details.reasoning_tokens == len("which file?\n")


@pytest.mark.parametrize("question", sorted(SCRIPT))
def test_a_stream_adds_up_to_the_same_message(client, question):
    whole = ask(client, question).choices[0]
    text, thoughts, calls, reasons = "", "", {}, []
    for chunk in ask(client, question, stream=True):
        [choice] = chunk.choices
        text += choice.delta.content or ""
        thoughts += getattr(choice.delta, "reasoning_content", "")
        for call in choice.delta.tool_calls or []:
            calls[call.index] = call
        reasons.append(choice.finish_reason)
    assert text == (whole.message.content or "")
    assert thoughts == getattr(whole.message, "reasoning_content", "")
    assert without_ids(calls.values()) == without_ids(whole.message.tool_calls)
    assert [reason for reason in reasons if reason] == [whole.finish_reason]


def test_a_call_that_cannot_be_read_is_text(client):
    [choice] = ask(client, "Break").choices
    assert choice.message.content == SCRIPT["Break"]
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"


def test_without_tools_the_marks_of_a_call_are_text(client):
    assert ask(client, "Read both", tools=None).choices[0].message.content == SCRIPT["Read both"]
    assert ask(client, "Read both", tool_choice="none").choices[0].message.content == SCRIPT["Read both"]


def test_several_calls_or_the_first_one(client):
    assert len(ask(client, "Read both").choices[0].message.tool_calls) == 2
    alone = ask(client, "Read both", parallel_tool_calls=False).choices[0]
    assert without_ids(alone.message.tool_calls) == [{"name": "read", "arguments": ARGUMENTS}]
    assert alone.finish_reason == "tool_calls"


def test_several_answers_are_each_read_alone(client):
    whole = ask(client, "Read a.py", n=2)
    assert [without_ids(choice.message.tool_calls) for choice in whole.choices] == [
        [{"name": "read", "arguments": ARGUMENTS}]
    ] * 2
    streamed = [[], []]
    for chunk in ask(client, "Read a.py", n=2, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.tool_calls or []
    assert [without_ids(calls) for calls in streamed] == [[{"name": "read", "arguments": ARGUMENTS}]] * 2


def test_log_probabilities_are_of_all_tokens_marks_and_all(client):
    answer = ask(client, "Read a.py", logprobs=True).choices[0]
    assert "".join(token.token for token in answer.logprobs.content) == SCRIPT["Read a.py"]
    streamed = [
        token.token
        for chunk in ask(client, "Read a.py", logprobs=True, stream=True)
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    assert "".join(streamed) == SCRIPT["Read a.py"]


@pytest.mark.parametrize(
    ("name", "change", "is_same"),
    [
        ("reasoning_content", "", True),
        ("reasoning", "", True),
        ("reasoning_content", " ", False),
    ],
)
def test_a_loop_of_tools_repeats_what_was_generated(client, server, name, change, is_same):
    salt = {"extra_body": {"cache_salt": f"{name}{change}."}}
    messages = [{"role": "user", "content": "A long story. " * 40 + "Read a.py"}]
    first = ask(client, messages, **salt)
    message = first.choices[0].message.to_dict()
    message[name] = message.pop("reasoning_content") + change
    call = message["tool_calls"][0]
    messages += [message, {"role": "tool", "tool_call_id": call["id"], "content": "one line"}]

    second = ask(client, messages, **salt)

    assert second.choices[0].message.content == "One line."
    after = "<|im_end|>\n<|im_start|>tool\none line<|im_end|>\n<|im_start|>assistant\n"
    size = len(server.tokenizer.encode(after, add_special_tokens=False))
    assert (second.usage.prompt_tokens == first.usage.total_tokens + size) is is_same


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}, {"max_tokens": 3}])
def test_every_chunk_is_one_of_the_protocol(client, more):
    body = {"stream": True, "stream_options": {"include_usage": True}, "include_recomputed": True}
    with client.chat.completions.with_streaming_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Read a.py"}],
        tools=TOOLS,
        extra_body=body | more,
    ) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    # The client takes what comes; this does not.
    chunks = [ChatCompletionChunk.model_validate_json(line, strict=True) for line in lines]
    assert chunks[-1].usage is not None
    assert len(chunks) > 3
    with pytest.raises(ValidationError):
        ChatCompletionChunk.model_validate_json(lines[0].replace('"choices"', '"choice"'), strict=True)
