"""A server over a GGUF file: the same paths, the same promise, and a cache that outlives it."""

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from milepost.engines.engine import Engine
from milepost.server.admission import Admission
from milepost.server.app import build_app
from milepost.server.listening import bind
from milepost.server.settings import ServeSettings
from milepost.server.worker import Worker

PROMPT = "The keeper of the light counts the ships, and the ships count on him. " * 12


@contextmanager
def serving(path, **options):
    engine = Engine.open(path, capacity="16MiB", **options)
    admission = Admission(
        footprint=engine.footprint, max_running=4, max_waiting=8, live_capacity_bytes=1 << 30
    )
    settings = ServeSettings.checked(model_name="tiny", port=0)
    app = build_app(Worker(engine, admission=admission), settings)
    listener = bind(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
        try:
            yield client
        finally:
            server.should_exit = True
            thread.join()
            listener.close()


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
