import asyncio
import json
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from running import MODEL, running

from milepost.server.sight.paths import EVENT_SECONDS, MOST_PAGES

SECRET = "xyzzy-plugh-secret"
KEY = {"Authorization": "Bearer the-operators-key"}


def status(server, headers=None):
    answer = httpx.get(f"{server.url}/status.json", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(server, *, count, headers=None):
    """The first snapshots, and when each came."""
    found = []
    with httpx.stream("GET", f"{server.url}/events", headers=headers, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                found.append((time.monotonic(), json.loads(line.removeprefix("data:"))))
                if len(found) == count:
                    return found
    raise AssertionError("the stream ended")


def test_its_numbers_are_those_of_the_metrics(busy):
    told = status(busy)
    values = {
        (
            sample.name.removeprefix("milepost_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in parse(httpx.get(f"{busy.url}/metrics").text)
        for sample in family.samples
    }
    cache = told["prefix_cache"]
    assert cache["queries"] == values["prefix_cache_queries_total",] > 1000
    assert cache["hits"] == values["prefix_cache_hits_total",] > 1000
    assert cache["hits"] + sum(cache["recomputed"].values()) == cache["queries"]
    for cause, count in cache["recomputed"].items():
        assert count == values["recomputed_tokens_total", cause]
    for reason, count in told["finished"].items():
        assert count == values["request_success_total", reason]
    for code, count in told["refused"].items():
        assert count == values["request_refused_total", code]
    assert told["tokens"]["prompt"] == values["prompt_tokens_total",]
    assert told["tokens"]["generated"] == values["generation_tokens_total",]
    (tier,) = told["tiers"]
    assert tier["state_bytes"] == values["cache_bytes", "state", tier["name"]]
    assert tier["kv_bytes"] == values["cache_bytes", "kv", tier["name"]]
    for field, name in (
        ("capacity_bytes", "cache_capacity_bytes"),
        ("checkpoints", "checkpoints"),
        ("evictions", "evictions_total"),
        ("cached_tokens", "cached_tokens_total"),
        ("price_of_a_byte", "price_of_a_byte"),
    ):
        assert tier[field] == values[name, tier["name"]]


def test_the_last_requests_are_the_newest_first_and_add_up(busy):
    recent = status(busy)["recent"]
    assert recent[0]["status"] == 400
    for record in recent:
        if record["status"] == 200:
            parts = sum(record["cached_tokens"].values()) + sum(record["recomputed"].values())
            assert parts == record["prompt_tokens"] > 0
            assert record["generated_tokens"] <= 6
    assert recent[1]["cached_tokens"]["memory"] > 500


def test_the_tree_has_the_documents_checkpoints_and_first_words(busy):
    nodes = status(busy)["tree"]["nodes"]
    texts = [node["text"] for node in nodes]
    assert any(text.startswith("Line 0 says 0.") for text in texts)
    deepest = max(each["position"] for node in nodes for each in node["checkpoints"])
    assert deepest > 1000
    for node in nodes:
        assert node["parent"] is None or nodes[node["parent"]]["end"] == node["start"]
        assert all(node["start"] < each["position"] <= node["end"] for each in node["checkpoints"])


def test_the_learned_overlaps_are_shares(busy):
    overlaps = status(busy)["overlaps"]
    assert overlaps["num_shared"] > 0
    for coordinate in overlaps["coordinates"]:
        assert sum(each["share"] for each in coordinate["bins"]) == pytest.approx(1, abs=0.01)
        assert coordinate["bins"][0]["from_tokens"] == 0


def test_a_page_is_told_of_what_changes_and_of_nothing_else(busy):
    # Until speeds have fallen to nothing, they change.
    (first_at, first), (second_at, second) = events(busy, count=2)
    assert first != second
    assert second_at - first_at >= EVENT_SECONDS * 0.9


def test_there_are_so_many_pages_and_no_more(server):
    async def open_all():
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=64)) as client:
            streams = [client.stream("GET", f"{server.url}/events") for _ in range(MOST_PAGES)]
            answers = [await stream.__aenter__() for stream in streams]
            # Kept, since a line reader that goes closes what it reads.
            readers = [answer.aiter_lines() for answer in answers]
            for answer, reader in zip(answers, readers, strict=True):
                assert answer.status_code == 200
                assert await anext(reader)
            async with client.stream("GET", f"{server.url}/events") as refused:
                await refused.aread()
            for stream in streams:
                await stream.__aexit__(None, None, None)
            return refused

    refused = asyncio.run(open_all())
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert events(server, count=1)


def test_where_there_are_keys_it_is_the_operators_and_says_nothing_of_prompts():
    keys = {"api_keys": ("first-key-of-all",), "operator_key": "the-operators-key", "salt_by_key": True}
    body = {"model": MODEL, "prompt": f"{SECRET} " * 40, "max_tokens": 2, "cache_salt": f"{SECRET}-salt"}
    with running(**keys) as server:
        client = {"Authorization": "Bearer first-key-of-all"}
        assert httpx.post(f"{server.url}/v1/completions", json=body, headers=client).status_code == 200
        for path in ("/", "/status.json", "/events", "/assets/page.js", "/metrics"):
            for headers in ({}, client, {"Authorization": "Basic !"}):
                answer = httpx.get(f"{server.url}{path}", headers=headers)
                assert answer.status_code == 401, path
                assert "Basic" in answer.headers["www-authenticate"]
        # As a browser sends what its reader types.
        typed = httpx.get(f"{server.url}/status.json", auth=("anyone", "the-operators-key"))
        assert typed.status_code == 200
        assert [node["text"] for node in typed.json()["tree"]["nodes"]] == [None]
        for path in ("/status.json", "/metrics"):
            text = httpx.get(f"{server.url}{path}", headers=KEY).text
            for secret in ("xyzzy", *keys["api_keys"], "the-operators-key"):
                assert secret not in text
        # The control: the first words are what an operator may ask for.
    with running(**keys, shows_text=True) as server:
        httpx.post(f"{server.url}/v1/completions", json=body, headers=client)
        assert "xyzzy" in json.dumps(status(server, KEY))


def test_an_operators_password_opens_no_clients_paths():
    with running(api_keys=("first-key-of-all",), operator_key="the-operators-key") as server:
        answer = httpx.get(f"{server.url}/v1/models", auth=("anyone", "the-operators-key"))
        assert answer.status_code == 401


def test_the_page_loads_nothing_from_elsewhere(server):
    answer = httpx.get(server.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    names = ["page.css", "page.js", "figures.js", "tree.js", "words.js", "icon.svg"]
    texts = [answer.text, *(httpx.get(f"{server.url}/assets/{name}").text for name in names)]
    for text in texts:
        assert text
        assert "https://" not in text
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in text
    for name in ("../paths.py", "page.html.bak", "%2e%2e/paths.py"):
        assert httpx.get(f"{server.url}/assets/{name}").status_code == 404
