"""Bodies of every usual API are the prompts that the same messages are."""

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.errors import ConfigurationError, TraceFormatError

SYSTEM = "<|im_start|>system\nbe kind<|im_end|>\n"
HI = "<|im_start|>user\nhi<|im_end|>\n"
YES = "<|im_start|>assistant\nyes<|im_end|>\n"
WHY = "<|im_start|>user\nwhy<|im_end|>\n"
ASKED = "<|im_start|>assistant\n"
MESSAGES = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
CHAT = SYSTEM + HI + ASKED
TEXT = "<s>once upon"

BODIES = {
    "messages as a string of JSON": ({"messages": json.dumps(MESSAGES)}, CHAT),
    "Responses, a text": ({"instructions": "be kind", "input": "hi"}, CHAT),
    "Responses, items": ({"instructions": "be kind", "input": [{"role": "user", "content": "hi"}]}, CHAT),
    "Responses, parts": (
        {
            "input": [
                {
                    "type": "message",
                    "role": "developer",
                    "content": [{"type": "input_text", "text": "be kind"}],
                },
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            ]
        },
        CHAT,
    ),
    "Responses, an answer and a thought": (
        {
            "input": [
                {"role": "user", "content": "hi"},
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
                {"role": "user", "content": "why"},
            ]
        },
        HI + YES + WHY + ASKED,
    ),
    "Anthropic, a system's text": ({"system": "be kind", "messages": MESSAGES[1:]}, CHAT),
    "Anthropic, blocks": (
        {
            "system": [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        },
        CHAT,
    ),
    "Anthropic, a document of text": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "document", "source": {"type": "text", "data": "hi"}}],
                }
            ]
        },
        HI + ASKED,
    ),
    "Bedrock": (
        {"system": [{"text": "be kind"}], "messages": [{"role": "user", "content": [{"text": "hi"}]}]},
        CHAT,
    ),
    "Google": (
        {
            "systemInstruction": {"parts": [{"text": "be kind"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {"role": "model", "parts": [{"text": "yes"}]},
                {"parts": [{"text": "why"}]},
            ],
        },
        SYSTEM + HI + YES + WHY + ASKED,
    ),
    "Ollama's generate": ({"system": "be kind", "prompt": "hi"}, CHAT),
    "a prompt of messages": ({"prompt": MESSAGES}, CHAT),
    "a bare list of messages": (MESSAGES, CHAT),
    "TGI": ({"inputs": "once upon", "parameters": {}}, TEXT),
    "Triton": ({"text_input": "once upon"}, TEXT),
    "SGLang": ({"text": "once upon", "sampling_params": {}}, TEXT),
    "vLLM's prompt object": ({"prompt": {"prompt": "once upon"}}, TEXT),
    "a prompt that is JSON itself": ({"prompt": '{"text": "a"}'}, '<s>{"text": "a"}'),
    "a text beside a count of its tokens": ({"prompt": "once upon", "tokens": 9}, TEXT),
    "a text beside ids that are not there": ({"prompt": "once upon", "prompt_token_ids": None}, TEXT),
}
ENVELOPES = {
    "LiteLLM's spend log": lambda body: {
        "request_id": "r",
        "call_type": "acompletion",
        "messages": "{}",
        "proxy_server_request": json.dumps({"url": "/v1/chat/completions", "body": body}),
        "status": "success",
    },
    "LiteLLM's payload": lambda body: {"messages": [], "proxy_server_request": {"body": body}},
    "Helicone": lambda body: {"request_body": body, "response_body": {"usage": {}}, "response_status": 200},
    "Langfuse": lambda body: {"type": "GENERATION", "name": "n", "input": body, "output": "yes"},
    "Langfuse, as strings": lambda body: {"type": "GENERATION", "input": json.dumps(body), "output": "yes"},
    "kwargs": lambda body: {"kwargs": body},
    "params": lambda body: {"params": body},
    "camel case": lambda body: {"requestBody": json.dumps(body)},
    "a container's log": lambda body: {"log": json.dumps({"request": body}), "stream": "stdout"},
    "deep": lambda body: {"event": {"http": {"request": {"body": body}}}},
    "batch": lambda body: {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body},
    "a name of one's own": lambda body: {"llmRequestJson": json.dumps(body), "llm_response": {"text": "yes"}},
    "a payload": lambda body: {"payload": body, "arrival_time": 3},
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_the_prompt_that_its_server_would_make_of_it(prompts, name):
    body, expected = BODIES[name]
    assert prompts(body) == [expected]


@pytest.mark.parametrize("name", ENVELOPES)
def test_what_gateways_and_tracers_write_around_a_body_is_opened(prompts, name):
    assert prompts(ENVELOPES[name]({"messages": MESSAGES})) == [CHAT]


def test_messages_that_a_tracer_keeps_as_the_input_are_read(prompts):
    for kept in (MESSAGES, json.dumps(MESSAGES)):
        assert prompts({"type": "GENERATION", "input": kept, "model": "m"}) == [CHAT]


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.prompt.0.role": "system", "gen_ai.prompt.0.content": "be kind",
         "gen_ai.prompt.1.role": "user", "gen_ai.prompt.1.content": "hi"},
        {"llm.input_messages.1.message.role": "user", "llm.input_messages.1.message.content": "hi",
         "llm.input_messages.0.message.role": "system", "llm.input_messages.0.message.content": "be kind"},
        {"gen_ai.input.messages": json.dumps(MESSAGES)},
        {"gen_ai.system_instructions": json.dumps([{"type": "text", "content": "be kind"}]),
         "gen_ai.input.messages": json.dumps(
             [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])},
    ],
)  # fmt: skip
def test_spans_are_read_with_their_attributes_inside_or_flat(log, prompts, attributes):
    named = attributes | {"gen_ai.request.model": "m", "llm.model_name": "m"}
    assert prompts(named) == prompts({"name": "chat", "attributes": named}) == [CHAT]
    trace = log({"name": "chat", "attributes": named})
    list(trace)
    assert dict(trace.facts.models) == {"m": 1}


def test_tools_are_the_same_in_every_dialect(log):
    function = {"name": "look", "description": "d", "parameters": {"type": "object"}}
    schema = {"name": "look", "description": "d", "input_schema": {"type": "object"}}
    spec = {"toolSpec": {"name": "look", "description": "d", "inputSchema": {"json": {"type": "object"}}}}
    bodies = [
        {"messages": MESSAGES, "tools": [{"type": "function", "function": function}]},
        {"messages": MESSAGES, "tools": [{"type": "function", **function}]},
        {"messages": MESSAGES, "functions": [function]},
        {"messages": MESSAGES, "tools": json.dumps([{"type": "function", "function": function}])},
        {"messages": MESSAGES, "tools": [schema]},
        {"messages": MESSAGES, "toolConfig": {"tools": [spec]}},
        {"messages": MESSAGES, "model_parameters": {"tools": [{"type": "function", "function": function}]}},
        {"contents": [{"parts": [{"text": "hi"}]}], "systemInstruction": "be kind",
         "tools": [{"functionDeclarations": [function]}]},
    ]  # fmt: skip
    first, *others = [request.keys.tolist() for request in log(*bodies)]
    assert others == [first] * (len(bodies) - 1)
    (without,) = log({"messages": MESSAGES})
    assert len(first) > without.num_tokens


def test_calls_and_results_of_tools_are_the_same_in_every_dialect(log):
    openai = {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": "yes",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "look", "arguments": {"at": "door"}}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": "a door"},
            {"role": "user", "content": "why"},
        ]
    }
    anthropic = {
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "yes"},
                    {"type": "tool_use", "id": "1", "name": "look", "input": {"at": "door"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "1",
                        "content": [{"type": "text", "text": "a door"}],
                    },
                    {"type": "text", "text": "why"},
                ],
            },
        ]
    }
    responses = {
        "input": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "yes"},
            {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"at": "door"}'},
            {"type": "function_call_output", "call_id": "1", "output": "a door"},
            {"role": "user", "content": "why"},
        ]
    }
    bedrock = {
        "messages": [
            {"role": "user", "content": [{"text": "hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"text": "yes"},
                    {"toolUse": {"toolUseId": "1", "name": "look", "input": {"at": "door"}}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "1", "content": [{"text": "a door"}]}},
                    {"text": "why"},
                ],
            },
        ]
    }
    first, *others = [request.keys.tolist() for request in log(openai, anthropic, responses, bedrock)]
    assert others == [first] * 3


@pytest.mark.parametrize("name", ["prompt", "text", "inputs"])
def test_a_batch_of_prompts_is_as_many_requests(prompts, name):
    assert prompts({name: ["a", "b"]}) == ["<s>a", "<s>b"]


def test_a_batch_of_token_ids_is_as_many_requests_with_numbered_ids(log):
    batch = [{"id": "r", name: [[1, 2], [3]]} for name in ("prompt", "input_ids", "prompt_token_ids")]
    for line in batch:
        trace = log(line, tokenizer=None)
        found = [(request.request_id, request.keys.tolist()) for request in trace]
        assert found == [("r-0", [1, 2]), ("r-1", [3])]


def test_token_ids_that_a_server_dumped_win_over_the_text_that_they_are_of(log):
    dumped = {"prompt": "once", "messages": MESSAGES, "prompt_token_ids": [1, 2, 3]}
    wrapped = {"request": {"obj": {"rid": "r", "text": None, "input_ids": [1, 2, 3]}}}
    triton = {"input_token_ids": [1, 2, 3]}
    assert [request.keys.tolist() for request in log(dumped, wrapped, triton, tokenizer=None)] == [
        [1, 2, 3]
    ] * 3


TURNS = [("human", "hi"), ("gpt", "yes"), ("human", "why"), ("gpt", "so")]


@pytest.mark.parametrize(
    "line",
    [
        {"id": "c", "conversations": [{"from": who, "value": said} for who, said in TURNS]},
        {"id": "c", "conversations": [
            {"role": {"human": "user", "gpt": "assistant"}[who], "content": said} for who, said in TURNS]},
        {"conversation_id": "c", "conversation": [
            {"role": {"human": "user", "gpt": "assistant"}[who], "content": said} for who, said in TURNS]},
    ],
)  # fmt: skip
def test_a_whole_conversation_is_a_request_for_each_answer(log, prompts, line):
    assert prompts(line) == [HI + ASKED, HI + YES + WHY + ASKED]
    trace = log(line)
    assert {request.session for request in trace} == {"c"}
    assert trace.facts.num_conversations == 1
    assert "1 conversation read as a request for each answer" in trace.facts.notes()[0]


def test_a_turn_that_nobody_answered_was_a_request_too(prompts):
    turns = [{"from": "system", "value": "be kind"}, {"from": "human", "value": "hi"}]
    assert prompts({"conversations": turns}) == [CHAT]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            {"input": "hi", "previous_response_id": "resp_1"},
            "previous_response_id='resp_1': the earlier turns are",
        ),
        (
            {"input": "hi", "conversation": "conv_1"},
            "conversation='conv_1': the earlier turns are on the server",
        ),
        ({"input": "hi", "conversation": {"id": "conv_1"}}, "the earlier turns are on the server"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, "the earlier turns are on the server"),
        ({"prompt": {"id": "pmpt_1", "variables": {}}}, "is a template kept on the server"),
        (
            {"contents": [{"parts": [{"text": "hi"}]}], "cachedContent": "c/1"},
            "the beginning of this prompt is on",
        ),
        (
            {"messages": [{"role": "user", "content": "redacted-by-litellm"}]},
            "LiteLLM was told not to log it",
        ),
        (
            {"messages": [{"role": "user", "content": "a... (litellm_truncated 9 chars) ...b"}]},
            "has cut the prompt",
        ),
        ({"prompt": "a... (litellm_truncated 9 chars)"}, "MAX_STRING_LENGTH_PROMPT_IN_DB"),
        ({"input": ["a", "b"]}, "a list of texts, as for embeddings"),
        ({"instruction": "do", "input": "a", "output": "b"}, "a data set to train on"),
        ({"input": [5]}, "input item 5 is no object"),
        ({"messages": "hi"}, "list of messages"),
        ({"messages": "[1"}, "messages are a string that is not JSON"),
        ({"contents": [{"role": "user"}]}, "has no parts"),
        ({"conversations": [{"value": "hi"}]}, "says not who speaks"),
        ({"conversations": [{"from": "nobody", "value": "hi"}]}, "a turn is from 'nobody'"),
        ({"conversations": [{"from": "gpt", "value": "hi"}]}, "has no prompt in it"),
        ({"messages": MESSAGES, "tools": 5}, "tools=5; give a list"),
    ],
)
def test_a_body_that_does_not_hold_its_whole_prompt_is_a_bad_line(log, line, says):
    good = {"prompt": "a"}
    with pytest.raises(TraceFormatError, match=f"line 2: .*{says}"):
        list(log(good, line))
    assert len(list(log(good, line, good, skip_bad_lines=True))) == 2


@pytest.mark.parametrize("depth", [100, 300, 1000])
@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": [1], "error": %s}',
        '{"prompt": [1], "model": %s}',
        '{"prompt": %s}',
        '{"input": %s}',
        '{"messages": [{"role": "user", "content": [{"type": "x", "a": %s}]}]}',
        '{"messages": [{"role": "user", "content": [{"type": "tool_use", "input": %s}]}]}',
        '{"messages": [{"role": "user", "content": "x"}], "tools": %s}',
    ],
)
def test_however_deep_a_value_goes_the_error_is_ours(log, line, depth):
    with suppress(TraceFormatError):
        assert len(list(log(line % ("[" * depth + "1" + "]" * depth)))) < 2


NAMES = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "source",
        "input",
        "name",
        "function",
        "arguments",
        "tool_calls",
        "parts",
    ]
) | st.sampled_from(
    ["toolUse", "toolResult", "functionCall", "image_url", "thinking", "from", "value", "images", "functions"]
)
WORDS = st.sampled_from(
    ["user", "assistant", "tool", "text", "tool_use", "tool_result", "document", "reasoning", "{"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
MESSAGE = st.fixed_dictionaries(
    {"role": WORDS, "content": VALUES}, optional={"tool_calls": VALUES, "images": VALUES}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    name=st.sampled_from(
        ["messages", "input", "contents", "conversations", "prompt", "system", "tools", "functions"]
    ),
    given_value=st.lists(MESSAGE, max_size=3) | VALUES,
    others=st.dictionaries(NAMES | st.sampled_from(["messages", "system", "tools"]), VALUES, max_size=3),
)
def test_whatever_a_body_holds_ends_in_requests_or_in_an_error_of_ours(
    log, open_tokenizer, name, given_value, others
):
    trace = log(others | {name: given_value}, tokenizer=open_tokenizer, skip_bad_lines=True, image_tokens=3)
    with suppress(TraceFormatError, ConfigurationError):
        assert all(request.num_tokens > 0 for request in trace)
