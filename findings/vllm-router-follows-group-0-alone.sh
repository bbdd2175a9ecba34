#!/usr/bin/env bash
# vllm-router 0.1.17, policy kv_aware. Seen in November 2026.
#
# A worker publishes the KV events that vLLM 0.32 publishes for a prompt of 2,000 tokens of a hybrid model
# (Qwen3-Next: groups 0 to 2 are recurrent layers, group 3 is attention, blocks of 320 tokens): for each recurrent
# group the state after 1,920 tokens (`kv_cache_spec_kind` "mamba", one block hash, and the tokens before it), then
# the six blocks of attention. Then the same prompt comes to the router, which writes to its log how many tokens it
# takes to be cached. Of these events it says 320; of the same without states 0; and 1,920, which is right, once
# attention is numbered as group 0. So it follows group 0, of whatever kind, and drops the others.
#
# Why it surprises: each event tells its kind, and Dynamo goes by that. vLLM numbers recurrent groups first, so of
# any hybrid model this router knows next to nothing, and sends prompts away from where they are cached.
#
# Seen (tokens that the router counts on, of 1,920 that are cached):
#   as vLLM publishes them: 320     attention alone: 0     attention alone, as group 0: 1920
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-router==0.1.17 pyzmq msgpack
PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" - "$work" <<'PYTHON'
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgpack
import zmq

BLOCK, PROMPT = 320, [100 + at % 97 for at in range(2000)]
FOLDER = Path(sys.argv[1])


class Worker(BaseHTTPRequestHandler):
    """Answers everything."""

    def do_GET(self):
        models = {"object": "list", "data": [{"id": "hybrid", "object": "model"}]}
        self.answer(models if self.path == "/v1/models" else {})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        usage = {"prompt_tokens": len(PROMPT), "completion_tokens": 1, "total_tokens": len(PROMPT) + 1}
        choice = {"index": 0, "text": "x", "finish_reason": "length"}
        self.answer({"id": "1", "object": "text_completion", "model": "hybrid", "choices": [choice], "usage": usage})

    def answer(self, body):
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def stored(hashes, group, kind):
    """An event as vLLM 0.32 encodes it."""
    event = {"type": "BlockStored", "block_hashes": hashes, "parent_block_hash": None, "block_size": BLOCK}
    event |= {"token_ids": PROMPT[: 6 * BLOCK], "lora_id": None, "medium": "GPU", "lora_name": None}
    return event | {"extra_keys": [None] * len(hashes), "group_idx": group, "kv_cache_spec_kind": kind}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def counted_on(name, events):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Worker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    worker = f"http://127.0.0.1:{server.server_port}"
    publisher = zmq.Context.instance().socket(zmq.PUB)
    source = f"tcp://127.0.0.1:{publisher.bind_to_random_port('tcp://127.0.0.1')}"
    port, log = free_port(), FOLDER / f"{name}.log"
    command = ["vllm-router", "--host", "127.0.0.1", "--port", str(port), "--policy", "kv_aware"]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()), "--log-level", "debug"]
    command += ["--worker-urls", worker, "--kv-event-source", f"{worker}={source}"]
    command += ["--kv-event-block-size", str(BLOCK), "--kv-event-model", "hybrid"]
    with log.open("wb") as printed:
        router = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)
    try:
        time.sleep(8)
        batch = msgpack.packb([time.time(), events, 0])
        publisher.send_multipart([b"", (0).to_bytes(8, "big"), batch])
        time.sleep(2)
        body = json.dumps({"model": "hybrid", "prompt": PROMPT, "max_tokens": 1}).encode()
        url, headers = f"http://127.0.0.1:{port}/v1/completions", {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).read()
    finally:
        router.terminate()
        router.wait(30)
        server.shutdown()
    printed = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text())
    (tokens,) = re.findall(r"credited_prefix_tokens=(\d+)", printed)
    return int(tokens)


blocks = [1, 2, 3, 4, 5, 6]
states = [stored([blocks[-1]], group, "mamba") for group in range(3)]
attention, as_first = ([stored(blocks, group, "full_attention")] for group in (3, 0))
published, alone, first = map(counted_on, ("published", "alone", "first"), (states + attention, attention, as_first))
print(f"as vLLM publishes them: {published}     attention alone: {alone}     as group 0: {first}")
sys.exit((published, alone, first) != (320, 0, 1920))
PYTHON
