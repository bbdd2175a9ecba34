import time

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from running import MODEL, running

from milepost.server.sight.metrics import METRICS

LONG = "Speak, friend, and enter. " * 40
HISTOGRAMS = ("time_to_first_token", "inter_token_latency", "e2e_request_latency", "request_queue_time")


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


@pytest.fixture
def fresh():
    with running() as server:
        yield server


def test_it_tells_what_requests_reused_and_why_the_rest_was_lost(fresh):
    usages = [ask(fresh, prompt).json()["usage"] for prompt in (LONG, LONG + "And then?", LONG, "Another one")]
    details = [usage["prompt_tokens_details"] for usage in usages]
    assert sum(each["cached_tokens"] for each in details) > 1000
    fresh.wait_until_idle()
    found = scraped(fresh)

    def value(name, **labels):
        return found[f"milepost_{name}", tuple(sorted(labels.items()))]

    prompt_tokens = sum(usage["prompt_tokens"] for usage in usages)
    cached = sum(each["cached_tokens"] for each in details)
    assert value("prompt_tokens_total") == value("prefix_cache_queries_total") == prompt_tokens
    assert value("prefix_cache_hits_total") == value("cached_tokens_total", tier="memory") == cached
    for cause in ("unseen", "alignment", "placement", "eviction", "reset"):
        expected = sum(each["recomputed"][cause] for each in details)
        assert value("recomputed_tokens_total", cause=cause) == expected
    generated = sum(usage["completion_tokens"] for usage in usages)
    assert value("generation_tokens_total") >= generated > 0
    ended = [value("request_success_total", finished_reason=each) for each in ("stop", "length")]
    assert sum(ended) == 4
    assert value("time_to_first_token_seconds_count") == value("e2e_request_latency_seconds_count") == 4
    assert value("inter_token_latency_seconds_count") == value("generation_tokens_total") - 4
    statistics = fresh.engine.cache.statistics()
    assert value("cache_bytes", tier="memory", kind="state") == statistics.checkpoint_bytes > 0
    assert value("cache_bytes", tier="memory", kind="kv") == statistics.kv_bytes > 0
    assert value("checkpoints", tier="memory") == statistics.num_checkpoints > 0
    assert value("cache_capacity_bytes", tier="memory") == 64 << 20
    assert value("num_requests_running") == value("num_requests_waiting") == 0
    assert value("serving") == 1


def test_what_was_refused_is_counted_by_its_status(fresh):
    assert ask(fresh, temperature=-1).status_code == 400
    assert ask(fresh, model="other").status_code == 404
    assert ask(fresh, model="another").status_code == 404
    found = scraped(fresh)
    assert found["milepost_request_refused_total", (("status", "400"),)] == 1
    assert found["milepost_request_refused_total", (("status", "404"),)] == 2
    assert found["milepost_prefix_cache_queries_total", ()] == 0


def test_an_answer_that_nobody_waits_for_is_counted_once(fresh):
    # One runs, and others wait behind it.
    body = {"model": MODEL, "prompt": LONG, "max_tokens": 500, "stream": True, "stop": []}
    with httpx.Client() as client:
        for _ in range(12):
            with client.stream("POST", f"{fresh.url}/v1/completions", json=body) as answer:
                next(answer.iter_bytes())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = scraped(fresh)
        ended = {
            labels[0][1]: value
            for (name, labels), value in found.items()
            if name == "milepost_request_success_total"
        }
        if sum(ended.values()) == 12 and not found["milepost_num_requests_running", ()]:
            break
        time.sleep(0.05)
    assert sum(ended.values()) == 12
    assert ended["abort"] + ended["stop"] + ended["length"] == 12
    assert ended["abort"] > 0


def test_no_label_names_a_client(fresh):
    ask(fresh, cache_salt="the-salt-of-a-client")
    text = httpx.get(f"{fresh.url}/metrics").text
    assert "milepost_prefix_cache_queries_total" in text
    for word in ("tenant", "salt", "the-salt-of-a-client", "friend"):
        assert word not in text


def test_every_metric_is_there_and_has_a_text(fresh):
    families = {family.name: family for family in parse(httpx.get(f"{fresh.url}/metrics").text)}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert family.documentation == metric.text
        assert family.type == ("counter" if metric.is_counter else "gauge")
    for name in HISTOGRAMS:
        assert families[f"milepost_{name}_seconds"].type == "histogram"


def test_it_speaks_openmetrics_to_who_asks_for_it(fresh):
    accept = "application/openmetrics-text; version=1.0.0"
    answer = httpx.get(f"{fresh.url}/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(answer.text)}
    assert "milepost_prefix_cache_hits" in names


@pytest.mark.parametrize("accept", ["", "text/plain;version=x", "application/openmetrics-text;version=..", "*/*"])
def test_no_header_makes_it_fail(fresh, accept):
    assert httpx.get(f"{fresh.url}/metrics", headers={"accept": accept}).status_code == 200


def test_where_there_are_keys_it_is_the_operators():
    keys = {"api_keys": ("first-key-of-all",), "operator_key": "the-operators-key"}
    with running(**keys) as server:
        for headers in ({}, {"Authorization": "Bearer first-key-of-all"}):
            assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 401
        assert scraped(server, {"Authorization": "Bearer the-operators-key"})["milepost_serving", ()] == 1
    with running(api_keys=keys["api_keys"]) as server:
        headers = {"Authorization": "Bearer first-key-of-all"}
        assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 401


def test_an_engine_that_has_stopped_still_tells_what_it_knew(fresh):
    ask(fresh)
    before = scraped(fresh)

    def fail(engine):
        raise KeyboardInterrupt

    with pytest.raises(Exception, match="interrupted|failed"):
        import asyncio

        asyncio.run(fresh.worker.call(fail))
    found = scraped(fresh)
    assert found["milepost_serving", ()] == 0
    assert found["milepost_prefix_cache_queries_total", ()] == before["milepost_prefix_cache_queries_total", ()]
