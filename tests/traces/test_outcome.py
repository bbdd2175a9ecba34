"""Requests that were refused or failed put nothing into a cache: they are left out, counted and named."""

import json

import pytest
from typer.testing import CliRunner

from milepost.cli.program import app
from milepost.errors import TraceFormatError

ASKED = {"prompt": [1, 2, 3]}
HASHED = {"input_length": 40, "block_size": 16, "hash_ids": [1, 2, 3]}
REFUSED = {
    "too many requests": ({"status": 429}, "status 429"),
    "a bad request": ({"status_code": 400}, "status 400"),
    "a server's failure": ({"http_status": 503}, "status 503"),
    "a status in camel case": ({"statusCode": 500}, "status 500"),
    "a status as text": ({"status": "429 Too Many Requests"}, "status 429"),
    "a status as digits": ({"response_status": "401"}, "status 401"),
    "a status of the answer": ({"response": {"status_code": 500, "body": {}}}, "status 500"),
    "a status in words": ({"status": "failure"}, "status failure"),
    "a status of a span": ({"status": {"code": "ERROR", "message": "no"}}, "status error"),
    "a code": ({"code": 429}, "status 429"),
    "an outcome": ({"outcome": "rejected"}, "status rejected"),
    "an error": ({"error": "out of memory"}, "error"),
    "an error as an object": ({"error": {"message": "too long", "code": 400}}, "error"),
    "an error of the answer": ({"response": {"error": {"message": "too long"}}}, "error"),
    "an answer that is a string": ({"response": json.dumps({"error": {"message": "no"}})}, "error"),
    "LiteLLM's error": ({"error_information": {"error_code": "429", "error_class": "RateLimit"}}, "error"),
    "an exception": ({"exception": "ConnectionError"}, "error"),
    "a failed finish": ({"finish_reason": "error"}, "finish reason error"),
    "a choice that failed": ({"response": {"choices": [{"finish_reason": "error"}]}}, "finish reason error"),
    "Langfuse's level": ({"level": "ERROR"}, "level error"),
    "no success": ({"success": False}, "success=false"),
    "broken off before a token came": (
        {"finish_reason": "abort", "response": {"usage": {"completion_tokens": 0}}},
        "finish reason abort",
    ),
}
SERVED = {
    "a status": {"status": 200},
    "a redirect": {"status": 302},
    "a status as text": {"status": "200 OK"},
    "a status in words": {"status": "success"},
    "an answer cut at its length": {"response": {"status": "incomplete", "error": None}},
    "no error": {"error": None},
    "an empty error": {"error": ""},
    "an error that says none": {"error": "None"},
    "an error that is false": {"error": False},
    "LiteLLM's empty error": {
        "error_information": {"error_code": "", "error_class": "", "llm_provider": "x"}
    },
    "a declined answer": {"response": {"choices": [{"finish_reason": "content_filter"}]}},
    "a refusal by the model": {"response": {"stop_reason": "refusal"}},
    "broken off in the answer": {"finish_reason": "abort", "response": {"usage": {"completion_tokens": 7}}},
    "broken off, who knows when": {"finish_reason": "abort"},
    "an answer of the model that is JSON": {"response": '{"status": "error", "error": "no such door"}'},
    "an answer of the model, parsed": {"output": {"status": "failed", "error": "no such door"}},
    "success": {"success": True},
    "a code of source": {"code": "raise ValueError"},
    "a state": {"state": "done", "result": {"text": "yes"}},
    "a code that tells of success": {"error_code": 200},
    "a code of nothing": {"error_code": 0, "error_type": ""},
    "cancelled, who knows when": {"status": "cancelled"},
}


@pytest.mark.parametrize(
    "prompt", [ASKED, HASHED, {"request": {"body": ASKED}}], ids=["ids", "hashes", "wrapped"]
)
@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_was_refused_is_left_out_and_counted(log, name, prompt):
    fields, reason = REFUSED[name]
    trace = log(prompt, prompt | fields, prompt)
    assert len(list(trace)) == 2
    assert dict(trace.facts.refused) == {reason: 1}
    assert trace.facts.notes() == [f"left out 1 request that failed or were refused ({reason}: 1)"]


@pytest.mark.parametrize("name", SERVED)
def test_a_request_that_was_computed_stays(log, name):
    trace = log(ASKED | SERVED[name])
    assert len(list(trace)) == 1
    assert trace.facts.num_refused == 0


@pytest.mark.parametrize(
    "line",
    [
        {"status": 429, "error": "slow down"},
        {"status": 400, "messages": []},
        {"status": 400, "messages": None},
        {"error": {"message": "no"}, "request": None},
        {"error": {"message": "no"}, "request": "{"},
        {"finish_reason": "abort", "prompt": ""},
        {"aborted": True, "prompt": None},
        {"status": "cancelled", "messages": []},
    ],
)
def test_a_refused_request_need_not_have_a_prompt(log, line):
    trace = log(line, ASKED)
    assert len(list(trace)) == 1
    assert trace.facts.num_refused == 1


def test_a_log_of_nothing_but_refusals_says_so(log):
    with pytest.raises(TraceFormatError, match=r"no request that was computed: all 3 lines .*status 429"):
        list(log(*[ASKED | {"status": 429}] * 3))


def test_what_was_refused_is_no_bad_line_and_a_retry_counts_once(log):
    refused = {"status": 429, **ASKED}
    trace = log(refused, ASKED, refused, refused, ASKED)
    assert [request.request_id for request in trace] == ["2", "5"]
    assert (trace.num_bad_lines, trace.facts.num_refused) == (0, 3)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ({"method": "POST", "url": "/v1/embeddings", "body": {"input": "a"}}, "/v1/embeddings"),
        ({"path": "/v1/moderations?x=1", "input": "a"}, "/v1/moderations?x=1"),
        ({"method": "GET", "path": "/v1/models", "status": 200}, "/v1/models"),
        ({"method": "GET", "url": "/other"}, "GET /other"),
        ({"endpoint": "/v1/audio/transcriptions"}, "/v1/audio/transcriptions"),
        ({"call_type": "aembedding", "input": ["a"]}, "aembedding"),
    ],
)
def test_requests_that_nothing_is_generated_for_are_left_out_and_counted(log, line, path):
    trace = log({"url": "/v1/completions", **ASKED}, line)
    assert len(list(trace)) == 1
    assert dict(trace.facts.other_endpoints) == {path: 1}
    assert trace.facts.notes() == [f"left out 1 request that nothing is generated for ({path}: 1)"]


@pytest.mark.parametrize("command", ["simulate", "sweep", "recommend", "report"])
def test_every_replay_says_what_it_left_out_in_words_and_in_json(log, command, tmp_path):
    served = {"input_length": 64, "block_size": 16, "hash_ids": [1, 2, 3, 4]}
    log(*[served | {"model": name} for name in "ab"] * 4,
        HASHED | {"status": 429})  # fmt: skip
    arguments = [
        command,
        str(tmp_path / "log.jsonl"),
        "--capacity-kv-tokens",
        "4k",
        "--checkpoint-kv-tokens",
        "8",
    ]
    if command in ("sweep", "report"):
        arguments += ["--output", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    told = told["results"] if isinstance(told, dict) and "results" in told else told
    facts = told[0]["log"] if isinstance(told, list) else told["log"]
    assert (facts["num_models"], facts["num_refused"], facts["refused"]) == (2, 1, {"status 429": 1})
    assert (
        "log: 2 models or adapters (requests of a: 4, b: 4) share the memory and nothing else" in done.stderr
    )
    assert "log: left out 1 request that failed or were refused (status 429: 1)" in done.stderr
