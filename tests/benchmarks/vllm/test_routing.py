"""The client of the running replicas sends a prompt to where the least is to be computed, and keeps count."""

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from benchmarks.vllm.routing.client import Choice, Client
from benchmarks.vllm.routing.event_listener import Promise
from benchmarks.vllm.routing.routers import ROUTERS, SeenReplica
from benchmarks.vllm.traffic.sessions import NUM_USERS, Session, draw_sessions, order_of

NUM_TOKENS, CACHED = 1000, 400


class Worker(BaseHTTPRequestHandler):
    """A replica that resumes the same of every prompt."""

    def do_POST(self):
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"])
        usage = {"prompt_tokens": NUM_TOKENS, "prompt_tokens_details": {"cached_tokens": CACHED}}
        content = json.dumps({"choices": [{"text": " and so on "}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def workers():
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Worker) for _ in range(2)]
    for server in servers:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def served(workers, promised, *, router="states", has_gone=False):
    urls = [f"http://127.0.0.1:{worker.server_port}" for worker in workers]
    promises = [
        Promise(attention_tokens=blocks, resumable_tokens=states, has_gone=lambda: has_gone)
        for blocks, states in promised or ()
    ]
    choice = Choice(router=ROUTERS[router](), promises=lambda _: (NUM_TOKENS, promises), block_tokens=100)
    client = Client(urls, answer_tokens=4, choice=choice if promised else None)
    client.serve([Session(prompts=["one", "two"], goes_on=True)], num_users=1)
    return client


def test_a_prompt_goes_to_where_most_can_be_resumed(workers):
    client = served(workers, [(900, 300), (500, 500)])
    assert [worker.asked for worker in workers] == [[], ["one", "one and so on two"]]
    assert [answer.cached_tokens for answer in client.answers] == [CACHED, CACHED]
    assert (client.beyond_attention, client.beyond_states, client.gone_states) == (200, 200, 0)


def test_what_was_evicted_before_the_answer_is_told_apart(workers):
    client = served(workers, [(900, 300), (500, 500)], has_gone=True)
    assert (client.beyond_states, client.gone_states) == (200, 200)
    assert served(workers, [(900, 300), (0, 0)], has_gone=True).gone_states == 0


def test_or_to_where_it_was_seen_if_that_counts(workers):
    client = served(workers, [(900, 300), (500, 500)], router="blocks and states")
    assert [len(worker.asked) for worker in workers] == [2, 0]
    assert (client.beyond_attention, client.beyond_states) == (1000, 0)


def test_without_promises_all_goes_to_the_first(workers):
    client = served(workers, None)
    assert [len(worker.asked) for worker in workers] == [2, 0]
    assert (client.beyond_attention, client.beyond_states) == (0, 0)


def test_sessions_are_half_about_documents_and_the_same_each_time():
    sessions = draw_sessions(16)
    assert sessions == draw_sessions(16)
    assert sum(len(each.prompts) for each in sessions) == 16
    assert sum(each.goes_on for each in sessions) == 2


def test_an_order_has_every_turn_after_the_one_before_and_few_sessions_at_a_time():
    sessions = draw_sessions(48)
    order = order_of(sessions, random.Random(1))
    assert sorted(order) == [
        (at, turn) for at, each in enumerate(sessions) for turn in range(len(each.prompts))
    ]
    assert order != sorted(order)
    is_open: set[int] = set()
    for place, turn in order:
        assert (turn == 0) is (place not in is_open)
        is_open.add(place)
        assert len(is_open) <= NUM_USERS
        if turn + 1 == len(sessions[place].prompts):
            is_open.remove(place)


def seen(*, waiting=0, promised=0, resumable=0, worth=0.0):
    return SeenReplica(
        waiting_tokens=waiting,
        promised_tokens=promised,
        resumable_tokens=resumable,
        block_worth=worth,
        block_tokens=100,
    )


def chosen(name, *replicas):
    return ROUTERS[name]().choose(["a", "b"], NUM_TOKENS, replicas)


def test_a_router_by_states_goes_to_where_most_can_be_resumed():
    assert chosen("states", seen(promised=900, resumable=300), seen(resumable=500)) == 1


def test_blocks_count_for_half_of_what_only_they_promise():
    assert chosen("blocks and states", seen(promised=900, resumable=300), seen(resumable=500)) == 0


@pytest.mark.parametrize("name", ["states", "blocks and states", "and worth"])
def test_nothing_is_worth_a_wait_of_more_than_two_prompts(name):
    assert chosen(name, seen(resumable=900, waiting=2 * NUM_TOKENS + 1), seen()) == 1
    assert chosen(name, seen(resumable=900, waiting=2 * NUM_TOKENS), seen()) == 0


def test_a_prompt_displaces_least_where_blocks_are_worth_least():
    assert chosen("and worth", seen(worth=1.0), seen(worth=0.1)) == 1
    assert chosen("blocks and states", seen(worth=1.0), seen(worth=0.1)) == 0


def test_by_affinity_a_prompt_goes_to_where_its_beginning_was_sent():
    router = ROUTERS["affinity"]()
    first = router.choose(["a", "b"], NUM_TOKENS, [seen(), seen()])
    other = router.choose(["x", "y"], NUM_TOKENS, [seen(), seen()])
    assert {first, other} == {0, 1}
    assert router.choose(["a", "b", "c"], NUM_TOKENS, [seen(), seen()]) == first
