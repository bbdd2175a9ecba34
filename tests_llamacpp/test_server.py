"""A server over a GGUF file: the same paths, the same promise, and a cache that outlives it."""

from contextlib import contextmanager

import httpx
import pytest

from milepost.engines.engine import Engine
from milepost.server.settings import ServeSettings
from server.running import Running

PROMPT = "The keeper of the light counts the ships, and the ships count on him. " * 12


@contextmanager
def serving(path, **options):
    engine = Engine.open(path, capacity="16MiB", max_running=4, **options)
    settings = ServeSettings.checked(model_name="tiny", port=0)
    server = Running(engine, settings, max_waiting=8, live_capacity_bytes=1 << 30)
    server.start()
    try:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield client
    finally:
        server.stop()


def complete(client, prompt, **options):
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    answer = client.post("/v1/completions", json=body | options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("family", ["qwen35", "mamba2"])
def test_answers_are_the_engines_and_survive_a_restart(gguf, tmp_path, family):
    cold = Engine.open(gguf(family), capacity="16MiB", policy="none")
    questions = [f"{PROMPT}What does he count? {number}" for number in range(3)]
    options = {"max_new_tokens": 6, "temperature": 0, "ignore_end_token": True}
    expected = [cold.generate(question, **options).text for question in questions]

    with serving(gguf(family), cache_dir=tmp_path) as client:
        first = [complete(client, question) for question in questions]
        assert [answer["choices"][0]["text"] for answer in first] == expected
        assert cached(first[2]) > 0
    with serving(gguf(family), cache_dir=tmp_path) as client:
        again = complete(client, questions[0])
        assert again["choices"][0]["text"] == expected[0]
        assert cached(again) >= cached(first[2])
        # Nothing crosses a salt, from the disk neither.
        assert cached(complete(client, questions[0], cache_salt="another")) == 0


def test_a_chat_streams(gguf):
    with serving(gguf("qwen35")) as client:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        whole = client.post("/v1/chat/completions", json=body | {"temperature": 0}).json()
        streamed = client.post("/v1/chat/completions", json=body | {"temperature": 0, "stream": True}).text
        assert streamed.endswith("data: [DONE]\n\n")
        assert whole["usage"]["completion_tokens"] <= 4
