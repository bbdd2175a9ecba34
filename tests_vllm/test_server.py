"""vLLM's own API server with the plugin, asked by the OpenAI client."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from openai import OpenAI

pytestmark = pytest.mark.kernels

DASHBOARD = Path(__file__).parents[1] / "examples" / "vllm" / "grafana-dashboard.json"
DOCUMENT = "The quick brown fox jumps over the lazy dog, and nobody minds. " * 30


@pytest.fixture(scope="module")
def address(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "metrics").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model_folder("qwen3-next")), "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", "8192", "--num-gpu-blocks-override", "300"),
        *("--enforce-eager", "--enable-prefix-caching", "--block-size", "64"),
        *("--scheduler-cls", "milepost.vllm.Scheduler", "--enable-prompt-tokens-details"),
    ]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")}
    for ours in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL"):
        environment.pop(ours, None)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
            assert "Milepost plans the checkpoints" in (folder / "log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait(url, server, log):
    until = time.monotonic() + 400
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail(f"the server does not answer:\n{log.read_text()[-4000:]}")


@pytest.fixture
def client(address):
    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def metrics(address) -> dict[str, float]:
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^(milepost_\w+?)(?:_total)?(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def chat(client, text, **options):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=8, temperature=0, **options
    )


def cached(usage) -> int:
    return usage.prompt_tokens_details.cached_tokens or 0 if usage.prompt_tokens_details else 0


def until_it_hits(ask, *, most=4):
    """Ask the same until some of it is reused: what to keep is learned."""
    for _ in range(most):
        answer = ask()
        if cached(answer.usage):
            return answer
    return pytest.fail("nothing was ever reused")


def test_chat_reports_what_was_cached(client):
    first = chat(client, DOCUMENT + "one")
    assert cached(first.usage) == 0
    again = until_it_hits(lambda: chat(client, DOCUMENT + "one"))
    assert again.choices[0].message.content == first.choices[0].message.content


def test_a_streamed_chat_says_the_same(client):
    whole = until_it_hits(lambda: chat(client, DOCUMENT + "two"))
    chunks = list(chat(client, DOCUMENT + "two", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert cached(chunks[-1].usage) > 0


def test_completions_streaming_and_not(client):
    def complete(**options):
        return client.completions.create(
            model="tiny", prompt=DOCUMENT + "three", max_tokens=8, temperature=0, **options
        )

    whole = until_it_hits(complete)
    chunks = list(complete(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert cached(chunks[-1].usage) > 0


def test_a_salt_keeps_two_users_apart(client):
    mine, yours = {"cache_salt": "mine"}, {"cache_salt": "yours"}
    until_it_hits(lambda: chat(client, DOCUMENT + "four", extra_body=mine))
    assert cached(chat(client, DOCUMENT + "four", extra_body=yours).usage) == 0
    assert cached(chat(client, DOCUMENT + "four", extra_body=mine).usage) > 0


def test_breakpoints_are_taken(client):
    answer = chat(client, DOCUMENT + "five", extra_body={"vllm_xargs": {"milepost_breakpoints": [640, 1280]}})
    assert answer.choices[0].message.content


def test_metrics_add_up(client, address):
    def settled():
        # The last request is counted with the step after it.
        chat(client, "hello")
        return metrics(address)

    before = settled()
    answers = [chat(client, "Another document. " + DOCUMENT + str(i)) for i in range(4)]
    after = settled()
    gained = {name: after[name] - before.get(name, 0) for name in after}
    num_tokens = sum(answer.usage.prompt_tokens for answer in answers)
    assert gained["milepost_requests"] == 4
    assert gained["milepost_prompt_tokens"] == num_tokens
    assert gained["milepost_reused_tokens"] == sum(cached(answer.usage) for answer in answers) > 0
    assert gained["milepost_checkpoints_hit"] == sum(cached(answer.usage) > 0 for answer in answers)
    assert gained["milepost_checkpoints_kept"] <= gained["milepost_checkpoints_planned"]
    assert gained["milepost_checkpoints_kept"] == gained["milepost_prefill_stops"]
    lost = ("unseen", "lost_to_placement", "lost_to_eviction", "lost_to_block_floor", "reused")
    assert sum(gained[f"milepost_{name}_tokens"] for name in lost) == num_tokens
    assert after["milepost_checkpoints_held"] > 0


def test_every_metric_on_the_dashboard_is_there(client, address):
    # So that the plugin and vLLM have something to tell.
    chat(client, DOCUMENT + "six")
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        exported = set(re.findall(r"^([\w:]+)[ {]", answer.read().decode(), re.MULTILINE))
    shown = set(re.findall(r"\b(?:milepost_|vllm:)\w+", DASHBOARD.read_text()))
    assert len(shown) > 20
    assert shown <= exported
