"""Requests as routers of vLLM and SGLang pass them on, with every switch that they know written out."""

import pytest

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0}
TEXT = {"model": "tiny", "prompt": "hi", "max_tokens": 2, "temperature": 0}
SWITCHES = {"no_stop_trim": False, "skip_special_tokens": True, "return_hidden_states": False}
#: What vllm-router 0.1.17 adds to a chat; sglang-router 0.3.2 adds all but the last.
CHAT_SWITCHES = SWITCHES | {
    "stream": False,
    "logprobs": False,
    "ignore_eos": False,
    "continue_final_message": False,
    "separate_reasoning": True,
    "stream_reasoning": True,
    "include_reasoning": True,
}
#: What both add to a text.
TEXT_SWITCHES = SWITCHES | {"stream": False, "echo": False, "ignore_eos": False}

REQUESTS = [("/v1/chat/completions", CHAT, CHAT_SWITCHES), ("/v1/completions", TEXT, TEXT_SWITCHES)]


@pytest.mark.parametrize(("path", "body", "switches"), REQUESTS)
def test_switches_that_change_nothing_change_nothing(http, path, body, switches):
    answers = [http.post(path, json=each).json() for each in (body, body | switches)]
    plain, routed = (answer["choices"] for answer in answers)
    assert routed == plain


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (path, body, name)
        for path, body, switches in REQUESTS
        for name in switches
        if name in SWITCHES or name.endswith("_reasoning")
    ],
)
def test_the_other_position_of_a_switch_is_refused_by_name(http, path, body, name):
    answer = http.post(path, json=body | {name: not CHAT_SWITCHES[name]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == name
