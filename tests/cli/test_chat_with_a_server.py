"""``milepost chat URL``: a conversation with a server, thoughts and all."""

import json

import pytest
from running import running
from typer.testing import CliRunner

from milepost.cli.program import app
from milepost.cli.remote_session import RemoteSession
from milepost.errors import ConfigurationError, InvalidRequestError


@pytest.fixture(scope="module")
def url():
    with running() as server:
        yield server.url


def said(text):
    return [{"role": "user", "content": text}]


def test_each_turn_resumes_from_those_before_it(url):
    session = RemoteSession(
        url, system="Answer well. " * 60, options={"max_new_tokens": 8, "temperature": 0.0}
    )
    first = "".join(session.answer(said("Who are you?")))
    assert session.completion.text == first
    assert session.completion.usage["completion_tokens"] <= 8
    list(session.answer(said("And then?")))
    assert session.completion.usage["prompt_tokens_details"]["cached_tokens"] >= 700
    assert [message["role"] for message in session.messages] == [
        "system", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert "prompt tokens reused" in session.completion.summary()
    session.reset()
    assert len(session.messages) == 1


def test_an_answer_that_is_left_is_kept_as_far_as_it_came(url):
    session = RemoteSession(url, system=None, options={"max_new_tokens": 50, "temperature": 0.0})
    answer = session.answer(said("Count."))
    piece = next(answer)
    answer.close()
    assert session.messages[-1] == {"role": "assistant", "content": piece}
    assert session.completion is None


def test_what_the_server_refuses_is_told_in_its_words(url):
    session = RemoteSession(url, system=None, options={"max_new_tokens": 5})
    with pytest.raises(InvalidRequestError, match="context"):
        list(session.answer(said("x" * 9000)))
    assert session.messages == []


def test_no_server_is_an_error_that_says_how_to_start_one():
    with pytest.raises(ConfigurationError, match="milepost serve"):
        RemoteSession("http://127.0.0.1:9", system=None, options={})


def test_a_server_that_asks_for_a_key_says_where_to_put_it(monkeypatch):
    with running(api_keys=["key-of-somebody"]) as server:
        monkeypatch.delenv("MILEPOST_API_KEY", raising=False)
        with pytest.raises(ConfigurationError, match="MILEPOST_API_KEY"):
            RemoteSession(server.url, system=None, options={})
        monkeypatch.setenv("MILEPOST_API_KEY", "key-of-somebody")
        assert RemoteSession(server.url, system=None, options={}).description.startswith("tiny at http")


def test_the_command_answers_line_by_line(url):
    command = ["chat", url, "--json", "--max-new-tokens", "4", "--temperature", "0"]
    result = CliRunner().invoke(app, command, input='"Hello"\n{"role": "user", "content": "Again"}\n')
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert [answer["usage"]["completion_tokens"] <= 4 for answer in answers] == [True, True]
    refused = CliRunner().invoke(app, ["chat", url, "--capacity", "1GiB"])
    assert refused.exit_code == 2
    assert "milepost serve" in refused.output
