"""What clients send by mistake, or in bad faith: an error in OpenAI's shape, and the server goes on."""

import httpx
import pytest
from running import MODEL, running

URL = "/v1/chat/completions"
GOOD = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def small():
    with running(max_body="2MiB") as server, httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def goes_on(small):
    yield
    assert small.post(URL, json=GOOD).status_code == 200


def refused(answer, status=400):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"]
    return error


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe\x00", b'{"model": "\xe9"}', b"[" * 100_000, b"NaN"],
)
def test_no_json_object(small, content):
    refused(small.post(URL, content=content, headers=JSON))


def test_a_body_that_does_not_say_that_it_is_json(small):
    assert "application/json" in refused(small.post(URL, content=b"{}"))["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"messages": "Hello"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": {"a": 1}}]},
        {"messages": [[]]},
        {"temperature": "hot"},
        {"temperature": 1e300},
        {"top_p": 0},
        {"top_p": -1},
        {"max_tokens": 0},
        {"max_tokens": -5},
        {"max_tokens": 1.5},
        {"n": 0},
        {"n": -1},
        {"n": 10**30},
        {"seed": 10**40},
        {"stop": ["x"] * 100},
        {"stop": [1]},
        {"top_logprobs": 10_000, "logprobs": True},
        {"tools": [{"type": "magic"}]},
        {"cache_salt": ""},
        {"cache_salt": "x" * 10_000},
        {"stream_options": {"include_everything": True}},
        {"model": None},
        {"model": "\u0000"},
        {"chat_template_kwargs": {"tokenize": True}},
    ],
    ids=str,
)
def test_a_field_that_breaks_its_rule(small, change):
    answer = small.post(URL, json=GOOD | change)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none(small, text):
    content = (
        f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "x"}}], "temperature": {text}}}'
    )
    assert refused(small.post(URL, content=content, headers=JSON))["param"] == "temperature"


def test_half_of_a_surrogate_pair(small):
    content = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "\\ud800"}}]}}'
    refused(small.post(URL, content=content, headers=JSON))


def test_more_bytes_than_are_read(small):
    huge = {"model": MODEL, "messages": [{"role": "user", "content": "x" * (3 << 20)}]}
    assert refused(small.post(URL, json=huge), 413)["code"] == "body_too_large"

    def in_pieces():
        yield b'{"model": "'
        for _ in range(40):
            yield b"x" * (1 << 17)

    assert refused(small.post(URL, content=in_pieces(), headers=JSON), 413)["code"] == "body_too_large"


def test_a_prompt_far_longer_than_the_context(small):
    messages = [{"role": "user", "content": "word " * 300_000}]
    assert refused(small.post(URL, json=GOOD | {"messages": messages}))["code"] == "context_length_exceeded"


def test_paths_and_methods_that_there_are_not(small):
    refused(small.get("/v1/nothing"), 404)
    refused(small.get(URL), 405)
    refused(small.delete("/v1/models"), 405)


def test_a_request_keeps_its_id(small):
    answer = small.get("/v1/models", headers={"x-request-id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7"
    for unusable in ("", "x" * 200, "two words", "ü".encode()):
        answer = small.get("/v1/models", headers={"x-request-id": unusable})
        assert len(answer.headers["x-request-id"]) == 32
    assert small.get("/nothing", headers={"x-request-id": "mine-8"}).headers["x-request-id"] == "mine-8"
