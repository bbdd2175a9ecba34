"""What becomes of requests when there are many, and when their clients leave."""

import threading
import time

import httpx
import pytest
from running import MODEL, open_engine, running

LONG = "All that is gold does not glitter, not all those who wander are lost. " * 20


def body(number=0, **options):
    messages = [{"role": "user", "content": f"{number}: {LONG}"}]
    return {"model": MODEL, "messages": messages, "max_tokens": 400, "ignore_eos": True} | options


def test_a_full_queue_says_when_to_ask_again():
    with running(max_waiting=1, engine_options={"max_running": 1}) as server:
        answers = []

        def post(number):
            answers.append(httpx.post(f"{server.url}/v1/chat/completions", json=body(number), timeout=60))

        clients = [threading.Thread(target=post, args=(number,)) for number in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses.count(200) >= 2
        assert statuses[-1] == 429
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "queue_full"
        server.wait_until_idle()
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body(max_tokens=1)).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_everything(stream):
    with running(engine_options={"max_running": 2}) as server:
        request = body(max_tokens=5000, stream=stream)
        with httpx.Client(base_url=server.url) as client:
            if stream:
                with client.stream("POST", "/v1/chat/completions", json=request) as answer:
                    # The first chunk comes before the prompt is computed.
                    next(line for line in answer.iter_lines() if '"content":"' in line and '""' not in line)
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post("/v1/chat/completions", json=request, timeout=0.5)
        server.wait_until_idle()
        generations = server.engine._scheduler
        assert not generations._running
        assert not generations._waiting
        assert not server.engine.cache._store.queue.pinned
        # What was captured of its prompt is there for the next.
        again = httpx.post(f"{server.url}/v1/chat/completions", json=body(max_tokens=1)).json()
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


def test_who_leaves_while_waiting_is_never_begun():
    with running(engine_options={"max_running": 1}) as server, httpx.Client(base_url=server.url) as client:
        with client.stream(
            "POST", "/v1/chat/completions", json=body(0, max_tokens=5000, stream=True)
        ) as first:
            lines = first.iter_lines()  # closes the answer with itself
            next(lines)
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=body(1), timeout=0.3)
            for _ in range(200):
                if server.worker.num_waiting == 0:
                    break
                time.sleep(0.01)
        server.wait_until_idle()
        again = client.post("/v1/chat/completions", json=body(1, max_tokens=1)).json()
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] < 64


def test_a_request_that_will_never_fit_is_refused():
    with running(live_capacity_bytes=300_000) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body())
        assert answer.status_code == 400
        assert "--live-capacity" in answer.json()["error"]["message"]
        assert httpx.post(f"{server.url}/v1/completions", json=short()).status_code == 200


def short():
    return {"model": MODEL, "prompt": "ab", "max_tokens": 2}


def test_requests_that_do_not_fit_together_wait_for_each_other():
    engine = open_engine()
    one = engine.footprint.checkpoint_bytes + 2000 * engine.footprint.kv_bytes_per_token
    with running(live_capacity_bytes=one + one // 2) as server:
        statuses = []

        def post(number):
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=body(number), timeout=60)
            statuses.append((answer.status_code, server.worker.num_running))

        clients = [threading.Thread(target=post, args=(number,)) for number in range(3)]
        for client in clients:
            client.start()
        most = 0
        while any(client.is_alive() for client in clients):
            most = max(most, server.worker.num_running)
            time.sleep(0.005)
        assert [status for status, _ in statuses] == [200] * 3
        assert most == 1


def test_answers_side_by_side_are_those_alone():
    bodies = [body(number % 3, max_tokens=20, temperature=1.0, seed=number) for number in range(9)]
    engine = open_engine(policy="none")
    expected = [
        engine.generate(
            each["messages"], max_new_tokens=20, temperature=1.0, seed=each["seed"], ignore_end_token=True
        ).text
        for each in bodies
    ]
    with running(engine_options={"max_running": 4}) as server:
        found = {}

        def post(number):
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=bodies[number], timeout=60)
            found[number] = answer.json()["choices"][0]["message"]["content"]

        clients = [threading.Thread(target=post, args=(number,)) for number in range(9)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert [found[number] for number in range(9)] == expected


def test_a_server_that_is_stopped_tells_who_waits():
    with running() as server:
        outcome = []
        thread = threading.Thread(
            target=lambda: outcome.append(
                httpx.post(f"{server.url}/v1/chat/completions", json=body(max_tokens=5000), timeout=60)
            )
        )
        thread.start()
        while not server.worker.num_running:
            time.sleep(0.01)
        server.worker._loop.call_soon_threadsafe(
            lambda: server.worker._loop.create_task(server.worker.stop())
        )
        thread.join()
        assert outcome[0].status_code == 503
        assert outcome[0].json()["error"]["code"] == "not_serving"
        assert httpx.get(f"{server.url}/health").status_code == 503
