#!/usr/bin/env bash
# vllm-router 0.1.17, policy cache_aware. Seen in November 2026.
#
# Twenty prompts of 600 random tokens, which share nothing, come one after the other to a router with two workers that
# both are idle each time. With `round_robin` each worker gets ten. With `cache_aware`, as it is set by default, one
# worker gets all twenty and the other none.
#
# Why it surprises: a prompt that matches nothing is to go to the worker with the least in its cache. Loads are only
# looked at from 64 requests of difference on, so where requests come one at a time half of the memory lies idle.
#
# Seen (requests that each worker got):
#   round_robin: [10, 10]     cache_aware: [0, 20]
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-router==0.1.17
PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" - <<'PYTHON'
import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Worker(BaseHTTPRequestHandler):
    """Answers everything at once."""

    def do_GET(self):
        models = {"object": "list", "data": [{"id": "model", "object": "model"}]}
        self.answer(models if self.path == "/v1/models" else {})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.num_prompts += self.path == "/v1/completions"
        usage = {"prompt_tokens": 600, "completion_tokens": 1, "total_tokens": 601}
        choice = {"index": 0, "text": "x", "finish_reason": "length"}
        self.answer({"id": "1", "object": "text_completion", "model": "model", "choices": [choice], "usage": usage})

    def answer(self, body):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def prompts_by_worker(policy):
    workers = [ThreadingHTTPServer(("127.0.0.1", 0), Worker) for _ in range(2)]
    for worker in workers:
        worker.num_prompts = 0
        threading.Thread(target=worker.serve_forever, daemon=True).start()
    port, drawn = free_port(), random.Random(1)
    command = ["vllm-router", "--host", "127.0.0.1", "--port", str(port), "--policy", policy]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    command += ["--worker-urls", *(f"http://127.0.0.1:{worker.server_port}" for worker in workers)]
    router = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(8)
        for _ in range(20):
            prompt = [drawn.randrange(50_000) for _ in range(600)]
            body = json.dumps({"model": "model", "prompt": prompt, "max_tokens": 1}).encode()
            url, headers = f"http://127.0.0.1:{port}/v1/completions", {"Content-Type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).read()
            time.sleep(0.1)
    finally:
        router.terminate()
        router.wait(30)
    return sorted(worker.num_prompts for worker in workers)


seen = {policy: prompts_by_worker(policy) for policy in ("round_robin", "cache_aware")}
print("     ".join(f"{policy}: {numbers}" for policy, numbers in seen.items()))
sys.exit(seen != {"round_robin": [10, 10], "cache_aware": [0, 20]})
PYTHON
