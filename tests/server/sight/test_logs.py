import io
import json
import logging

import httpx
import pytest
from running import MODEL, running

from milepost.server.sight.logs import configure_logs

SECRET = "xyzzy-plugh-secret"
KEYS = ("first-key-of-all", "second-key-of-all")


@pytest.fixture
def logs():
    """Configures logs into a stream, and puts all back."""
    root, own = logging.getLogger(), logging.getLogger("milepost")
    before = root.handlers[:], root.level, own.level
    made = []

    def configured(form, level):
        made.append(io.StringIO())
        configure_logs(form, level, stream=made[-1])
        return made[-1]

    yield configured
    root.handlers[:], _, _ = before
    root.setLevel(before[1])
    own.setLevel(before[2])


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def ask(server, *, headers=None, **options):
    body = {"model": MODEL, "prompt": f"{SECRET} " * 50, "max_tokens": 3} | options
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=headers)


def test_a_request_has_one_line_that_says_what_its_usage_says(logs):
    stream = logs("json", "info")
    with running() as server:
        answers = [
            ask(server, headers={"x-request-id": f"r-{number}"}, include_recomputed=True) for number in (1, 2)
        ]
    told = [line for line in lines(stream) if line["event"] == "request"]
    assert [line["request_id"] for line in told] == ["r-1", "r-2"]
    for line, answer in zip(told, answers, strict=True):
        usage = answer.json()["usage"]
        details = usage["prompt_tokens_details"]
        assert line["path"] == "/v1/completions"
        assert (line["method"], line["status"], line["level"]) == ("POST", 200, "info")
        assert line["prompt_tokens"] == usage["prompt_tokens"]
        assert sum(line["cached_tokens"].values()) == details["cached_tokens"]
        assert line["recomputed"] == details["recomputed"]
        assert line["finish_reasons"] == [answer.json()["choices"][0]["finish_reason"]]
        assert 0 < line["ttft_seconds"] < line["total_seconds"]
        assert line["timestamp"].endswith("Z")
    assert told[1]["cached_tokens"]["memory"] > 500


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_no_line_says_what_a_client_wrote(logs, form, level):
    stream = logs(form, level)
    with running(api_keys=KEYS, salt_by_key=True) as server:
        key = {"Authorization": f"Bearer {KEYS[0]}"}
        assert ask(server, headers=key, cache_salt=SECRET).status_code == 200
        assert ask(server, headers=key, cache_salt=SECRET, stream=True).status_code == 200
        # What errors quote: unknown fields, values, models, paths, and keys that are none.
        assert ask(server, headers=key, **{SECRET: 1}).status_code == 400
        assert ask(server, headers=key, stop=[SECRET] * 99).status_code == 400
        assert ask(server, headers=key, model=SECRET).status_code == 404
        assert httpx.get(f"{server.url}/{SECRET}?{SECRET}", headers=key).status_code == 404
        assert httpx.get(f"{server.url}/v1/models/{SECRET}", headers=key).status_code == 404
        assert ask(server, headers={"Authorization": f"Bearer {SECRET}"}).status_code == 401
    told = stream.getvalue()
    assert told.count("request_id") >= 8
    for secret in (SECRET, "xyzzy", *KEYS):
        assert secret not in told


def test_the_control_a_line_with_the_text_would_be_found(logs):
    stream = logs("json", "info")
    logging.getLogger("milepost.server").warning("a prompt: %s", SECRET)
    assert SECRET in stream.getvalue()


def test_an_unexpected_error_says_where_and_not_what(logs):
    def fail(stream_level):
        stream = logs("json", stream_level)
        try:
            try:
                raise KeyError(SECRET)
            except KeyError as error:
                raise RuntimeError(SECRET) from error
        except RuntimeError:
            logging.getLogger("milepost.server").exception("request r-1 failed")
        (line,) = lines(stream)
        return line

    line = fail("info")
    assert line["event"] == "request r-1 failed"
    assert SECRET not in json.dumps(line)
    assert "RuntimeError" in line["exception"]
    assert "KeyError" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert SECRET in fail("debug")["exception"]


def test_who_only_looks_is_told_of_when_debugging(logs):
    quiet = logs("json", "info")
    with running() as server:
        httpx.get(f"{server.url}/health")
        httpx.get(f"{server.url}/metrics")
        assert not [line for line in lines(quiet) if line["event"] == "request"]
        loud = logs("json", "debug")
        httpx.get(f"{server.url}/health")
    # The line of what was asked before may come late: a client has its answer before it is written.
    assert [line["path"] for line in lines(loud) if line["event"] == "request"][-1] == "/health"


def test_graver_lines_alone_where_that_is_asked(logs):
    stream = logs("json", "error")
    with running() as server:
        assert ask(server).status_code == 200
        assert ask(server, temperature=-1).status_code == 400
    assert stream.getvalue() == ""
