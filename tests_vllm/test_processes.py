"""What `benchmarks.vllm.replicas` starts: a real server, whose events arrive; and nothing is left of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from benchmarks.vllm.routing import processes
from benchmarks.vllm.routing.asking import ask, block_tokens_of
from benchmarks.vllm.routing.client import promises_of
from benchmarks.vllm.routing.event_listener import EventListener

pytestmark = pytest.mark.kernels

UNIT = 64
ARGUMENTS = [
    *("--num-gpu-blocks-override", "120", "--block-size", "64", "--prefix-match-unit", str(UNIT)),
    *("--scheduler-cls", "milepost.vllm.Scheduler"),
]
PROMPT = "The quick brown fox jumps over the lazy dog, and nobody minds. " * 30
MARK = "MILEPOST_TEST_OF_PROCESSES"


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """Mark all that is started from here on, in whatever session."""
    monkeypatch.setenv(MARK, str(tmp_path))
    # As for a server of its own; see `conftest`.
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    yield str(tmp_path)
    for process in left(str(tmp_path)):
        process.kill()


# Engines and routers give themselves a title, which takes the place of the environment they were given: they
# are known by their session, which is that of the process that was started.
SESSIONS: dict[str, set[int]] = {}


def left(mark):
    """Return the processes that were started under ``mark`` and run."""
    found, sessions = [], SESSIONS.setdefault(mark, set())
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            session = os.getsid(process.pid)
            is_marked = process.environ().get(MARK) == mark
            if is_marked and session != os.getsid(0):
                sessions.add(session)
            if (is_marked or session in sessions) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def is_nothing_left(mark, *, seconds=30):
    """Return whether all of it has ended: some take a moment after their parent."""
    until = time.monotonic() + seconds
    while left(mark) and time.monotonic() < until:
        time.sleep(0.1)
    return left(mark) == []


def test_a_server_tells_what_it_keeps_and_ends_when_interrupted(mark, model_folder, tmp_path):
    model, (events, public) = model_folder("qwen3-next"), processes.free_ports(2)

    def serve():
        with (
            EventListener([events], public_ports=[public]) as listener,
            processes.server(
                model, events_port=events, cores=[cores()[-1]], folder=tmp_path, arguments=ARGUMENTS
            ) as server,
        ):
            server.wait()
            block_tokens = block_tokens_of(server.url)
            listener.watch(block_tokens=block_tokens, match_unit=UNIT)
            promises = promises_of(model, listener, block_tokens=block_tokens, match_unit=UNIT)
            assert promises(PROMPT)[1][0].resumable_tokens == 0
            ask(server.url, PROMPT, answer_tokens=4)
            until = time.monotonic() + 10
            while (promise := promises(PROMPT)[1][0]).resumable_tokens == 0 and time.monotonic() < until:
                time.sleep(0.1)
            answer = ask(server.url, PROMPT, answer_tokens=4)
            assert answer.cached_tokens == promise.resumable_tokens > 0
            assert not promise.has_gone()
            assert listener.num_lost == 0
            # The server, and its engine at least.
            assert len(left(mark)) > 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve()
    assert is_nothing_left(mark, seconds=5)


def cores():
    return sorted(os.sched_getaffinity(0))


def test_a_server_that_cannot_start_says_why_and_is_gone(mark, tmp_path):
    arguments = ["--no-such-argument"]
    with (
        processes.server(
            tmp_path, events_port=1, cores=[cores()[-1]], folder=tmp_path, arguments=arguments
        ) as server,
        pytest.raises(RuntimeError, match="no-such-argument"),
    ):
        server.wait()
    assert is_nothing_left(mark, seconds=5)


def num_servers(mark):
    num = 0
    for process in left(mark):
        with suppress(psutil.NoSuchProcess):
            num += any("api_server" in part for part in process.cmdline())
    return num


def test_nothing_is_left_of_a_benchmark_that_is_ended(mark):
    command = [sys.executable, "-m", "benchmarks.vllm.replicas", "--way", "states", "--requests", "1"]
    benchmark = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 300
    while num_servers(mark) < 2 and time.monotonic() < until:
        assert benchmark.poll() is None, benchmark.stderr.read()
        time.sleep(0.2)
    assert num_servers(mark) >= 2
    benchmark.send_signal(signal.SIGTERM)
    assert benchmark.wait(60) != 0
    # As by Ctrl-C.
    assert "KeyboardInterrupt" in benchmark.stderr.read()
    assert is_nothing_left(mark)


@pytest.mark.skipif(processes.router_command() is None, reason="there is no vllm-router on the path")
def test_a_router_hands_on_what_it_is_asked_and_ends(mark, tmp_path):
    class Worker(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(b"{}")

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            usage = {"prompt_tokens": 3, "prompt_tokens_details": None}
            self.answer(json.dumps({"choices": [{"text": "yes"}], "usage": usage}).encode())

        def answer(self, content):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    worker = ThreadingHTTPServer(("127.0.0.1", 0), Worker)
    threading.Thread(target=worker.serve_forever, daemon=True).start()
    with processes.router(
        processes.router_command(),
        [f"http://127.0.0.1:{worker.server_port}"],
        policy="round_robin",
        folder=tmp_path,
        arguments=[],
    ) as router:
        SESSIONS[mark] = {router.process.pid}
        router.wait()
        assert ask(router.url, "hello", answer_tokens=1).text == "yes"
        assert left(mark)
    worker.shutdown()
    worker.server_close()
    assert is_nothing_left(mark, seconds=5)
