import asyncio
import time

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from running import MODEL, running

from milepost.server.sight.metrics import METRICS

LONG = "Speak, friend, and enter. " * 40
HISTOGRAMS = ("time_to_first_token", "inter_token_latency", "e2e_request_latency", "request_queue_time")


class Stop(BaseException):
    """What ends a thread."""


def ask(server, prompt=LONG, *, headers=None, **options):
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 4, "include_recomputed": True} | options
    return httpx.post(f"{server.url}/v1/completions", json=body, headers=headers)


def scraped(server, headers=None):
    """The samples by name and labels."""
    answer = httpx.get(f"{server.url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(answer.text)
        for sample in family.samples
    }


def grown(server, before):
    """How much each sample is larger than it was."""
    after = scraped(server)
    return {key: value - before.get(key, 0) for key, value in after.items()}


def test_it_tells_what_requests_reused_and_why_the_rest_was_lost(server):
    before = scraped(server)
    usages = [
        ask(server, prompt).json()["usage"] for prompt in (LONG, LONG + "And then?", LONG, "Another one")
    ]
    details = [usage["prompt_tokens_details"] for usage in usages]
    assert sum(each["cached_tokens"] for each in details) > 1000
    server.wait_until_idle()
    new, now = grown(server, before), scraped(server)

    def value(name, **labels):
        return now[f"milepost_{name}", tuple(sorted(labels.items()))]

    def more(name, **labels):
        return new[f"milepost_{name}", tuple(sorted(labels.items()))]

    prompt_tokens = sum(usage["prompt_tokens"] for usage in usages)
    cached = sum(each["cached_tokens"] for each in details)
    assert more("prompt_tokens_total") == more("prefix_cache_queries_total") == prompt_tokens
    assert more("prefix_cache_hits_total") == more("cached_tokens_total", tier="memory") == cached
    for cause in ("unseen", "alignment", "placement", "eviction", "reset"):
        expected = sum(each["recomputed"][cause] for each in details)
        assert more("recomputed_tokens_total", cause=cause) == expected
    generated = sum(usage["completion_tokens"] for usage in usages)
    assert more("generation_tokens_total") >= generated > 0
    ended = [more("request_success_total", finished_reason=each) for each in ("stop", "length")]
    assert sum(ended) == 4
    assert more("time_to_first_token_seconds_count") == more("e2e_request_latency_seconds_count") == 4
    assert more("inter_token_latency_seconds_count") == more("generation_tokens_total") - 4
    statistics = server.engine.cache.statistics()
    assert value("cache_bytes", tier="memory", kind="state") == statistics.checkpoint_bytes > 0
    assert value("cache_bytes", tier="memory", kind="kv") == statistics.kv_bytes > 0
    assert value("checkpoints", tier="memory") == statistics.num_checkpoints > 0
    assert value("cache_capacity_bytes", tier="memory") == 64 << 20
    assert value("num_requests_running") == value("num_requests_waiting") == 0
    assert value("serving") == 1


def test_what_was_refused_is_counted_by_its_status(server):
    before = scraped(server)
    assert ask(server, temperature=-1).status_code == 400
    assert ask(server, model="other").status_code == 404
    assert ask(server, model="another").status_code == 404
    new = grown(server, before)
    assert new["milepost_request_refused_total", (("status", "400"),)] == 1
    assert new["milepost_request_refused_total", (("status", "404"),)] == 2
    assert new["milepost_prefix_cache_queries_total", ()] == 0


def test_an_answer_that_nobody_waits_for_is_counted_once(server):
    before = scraped(server)
    body = {"model": MODEL, "prompt": LONG, "max_tokens": 500, "stream": True, "stop": []}
    with httpx.Client() as client:
        for _ in range(12):
            with client.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
                next(answer.iter_bytes())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        new = grown(server, before)
        ended = {
            labels[0][1]: value
            for (name, labels), value in new.items()
            if name == "milepost_request_success_total"
        }
        if sum(ended.values()) == 12 and not scraped(server)["milepost_num_requests_running", ()]:
            break
        time.sleep(0.05)
    assert sum(ended.values()) == 12
    assert ended["abort"] + ended["stop"] + ended["length"] == 12
    assert ended["abort"] > 0


def test_no_label_names_a_client(server):
    ask(server, cache_salt="the-salt-of-a-client")
    text = httpx.get(f"{server.url}/metrics").text
    assert "milepost_prefix_cache_queries_total" in text
    for word in ("tenant", "salt", "the-salt-of-a-client", "friend"):
        assert word not in text


def test_every_metric_is_there_and_has_a_text(server):
    families = {family.name: family for family in parse(httpx.get(f"{server.url}/metrics").text)}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert family.documentation == metric.text
        assert family.type == ("counter" if metric.is_counter else "gauge")
    for name in HISTOGRAMS:
        assert families[f"milepost_{name}_seconds"].type == "histogram"


def test_it_speaks_openmetrics_to_who_asks_for_it(server):
    accept = "application/openmetrics-text; version=1.0.0"
    answer = httpx.get(f"{server.url}/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(answer.text)}
    assert "milepost_prefix_cache_hits" in names


@pytest.mark.parametrize(
    "accept", ["", "text/plain;version=x", "application/openmetrics-text;version=..", "*/*"]
)
def test_no_header_makes_it_fail(server, accept):
    assert httpx.get(f"{server.url}/metrics", headers={"accept": accept}).status_code == 200


def test_where_there_are_keys_it_is_the_operators():
    keys = {"api_keys": ("first-key-of-all",), "operator_key": "the-operators-key"}
    with running(**keys) as server:
        for headers in ({}, {"Authorization": "Bearer first-key-of-all"}):
            assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 401
        assert scraped(server, {"Authorization": "Bearer the-operators-key"})["milepost_serving", ()] == 1
    with running(api_keys=keys["api_keys"]) as server:
        headers = {"Authorization": "Bearer first-key-of-all"}
        assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 401


def test_an_engine_that_has_stopped_still_tells_what_it_knew():
    def fail(engine):
        raise Stop

    with running() as server:
        ask(server)
        before = scraped(server)
        with pytest.raises(Stop):
            asyncio.run(asyncio.wait_for(server.worker.call(fail), 10))
        found = scraped(server)
    assert found["milepost_serving", ()] == 0
    assert (
        found["milepost_prefix_cache_queries_total", ()] == before["milepost_prefix_cache_queries_total", ()]
    )
