"""What asks a server, against one that answers as SGLang's does: it finds prefixes, and can lie."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from benchmarks.sglang.served import Answer, ask, compare, questions, run


class Server(BaseHTTPRequestHandler):
    """Finds the longest prefix of whole 64 tokens that it has seen since it was flushed."""

    seen: list[list[int]]
    is_lying = False

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()
        if self.path == "/flush_cache":
            self.seen.clear()
            return
        asked = json.loads(body)
        prompt = asked["input_ids"]
        assert asked["sampling_params"]["temperature"] == 0
        cached = max((_shared(prompt, other) for other in self.seen), default=0)
        self.seen.append(prompt)
        answer = [sum(prompt) % 1000 + (cached > 0 and self.is_lying) + at for at in range(3)]
        for count in range(1, len(answer) + 1):
            about = {
                "prompt_tokens": len(prompt),
                "cached_tokens": cached,
                "output_token_logprobs": [[-0.5, token, None] for token in answer[:count]],
            }
            self.wfile.write(b"data: " + json.dumps({"text": "", "meta_info": about}).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


def _shared(one, other):
    count = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    return min(count, len(one) - 1) // 64 * 64


@pytest.fixture
def url():
    Server.seen, Server.is_lying = [], False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_hit_is_told_from_a_cold_prompt(url):
    prompt = list(range(1000, 1300))
    cold, warm = ask(url, prompt), ask(url, prompt)

    assert (cold.prompt_tokens, cold.cached_tokens, warm.cached_tokens) == (300, 0, 256)
    assert cold.ids == warm.ids
    assert len(cold.logprobs) == 3
    assert cold.seconds > 0


def test_all_are_asked_as_they_come_and_each_in_an_empty_cache(url):
    prompts = questions()[:8]
    answers = run(url, prompts)
    found = [each.cached_tokens for each in answers["warm"]]

    assert found[0] == 0, "the one that warms up is flushed"
    assert max(found) == 12_000 // 64 * 64
    assert [each.cached_tokens for each in answers["cold"]] == [0] * 8
    *_, stock, planned = compare(answers, answers)
    assert stock.numbers == planned.numbers == {"others": 0, "hits": sum(map(bool, found)), "furthest": 0.0}


def test_an_answer_that_a_hit_changes_is_counted(url):
    Server.is_lying = True
    prompts = questions()[:8]
    answers = run(url, prompts)
    numbers = compare(answers, answers)[-1].numbers

    assert numbers["others"] == numbers["hits"] > 0


def test_more_that_is_found_later_is_told_as_it_is():
    def answers(cached, seconds):
        return {
            "warm": [Answer(100, cached, seconds, [1], [-0.1])],
            "cold": [Answer(100, 0, 1.0, [1], [-0.3])],
        }

    found, soon, _, planned = compare(answers(64, 0.5), answers(96, 0.75))
    assert (found.reached, soon.reached) == (True, False)
    assert planned.numbers["furthest"] == pytest.approx(0.2)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(requests.RequestException, match=r"127\.0\.0\.1"):
        ask("http://127.0.0.1:9", [1, 2, 3])
