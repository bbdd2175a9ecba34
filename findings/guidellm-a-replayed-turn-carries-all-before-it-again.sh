#!/usr/bin/env bash
# guidellm 0.8.1, transformers 5.24.0 and torch 2.13.0 (CPU). Seen in November 2026.
#
# In a WEKA trace (recorded sessions of coding agents) `in` and `hash_ids` of a request are those of its whole prompt,
# all turns before it included. `guidellm run` with `kind=weka` writes a text of that length for each turn, and then
# sends it as a new message behind the whole conversation so far. So turn n carries the first turn n times: a session
# whose prompts grow from 1,024 to 3,840 tokens is replayed with prompts of up to 29,536. The repeated text stands at
# another position each time, so no prefix cache can know it: with unlimited memory 7.7 times as many tokens are
# computed. The same rows are replayed as recorded when each is a session of its own, and as a Mooncake trace.
#
# Why it surprises: the loader's docstring says "Generated prompts match the prompt token count of the row", the part
# that prompts share looks much like the recorded one (0.81 for 0.87), and no warning speaks of it. So a figure of the
# cache seems right and is one of another load; a session of a hundred turns outgrows every context window.
#
# Seen (12 requests; computed: tokens behind what a prompt shares with any before it):
#   recorded: longest 3840, sent 29184, computed 3840, shared 0.87
#   weka, one session of 12: longest 29536, sent 155200, computed 29536, shared 0.81
#   weka, 12 sessions of one: longest 3840, sent 29184, computed 3840, shared 0.87
#   mooncake: longest 3840, sent 29184, computed 3840, shared 0.87
#
# Exits 1 if the behaviour is another.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.24.0 guidellm==0.8.1
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" 2>/dev/null <<'PYTHON'
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORK, BLOCK, ANSWER = Path(sys.argv[1]), 64, 32
ROWS = [{"t": 0.3 * turn, "type": "s", "model": "any", "in": length, "out": ANSWER,
         "hash_ids": list(range(1, length // BLOCK + 1)), "stop": "end_turn", "input_types": ["text"]}
        for turn, length in enumerate(range(1024, 4096, 256))]
SESSION = {"block_size": BLOCK, "hash_id_scope": "global"}
TRACES = {
    "weka, one session of 12": ("weka", [SESSION | {"id": "0", "requests": ROWS}]),
    "weka, 12 sessions of one": ("weka", [SESSION | {"id": str(n), "requests": [row]} for n, row in enumerate(ROWS)]),
    "mooncake": ("mooncake", [{"timestamp": row["t"], "input_length": row["in"], "output_length": row["out"],
                               "hash_ids": row["hash_ids"]} for row in ROWS]),
}
prompts = []


class Model(BaseHTTPRequestHandler):
    """Keeps the text of each prompt, and streams an answer of the length that was asked for."""

    protocol_version = "HTTP/1.1"

    def reply(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        self.reply(json.dumps({"object": "list", "data": [{"id": "any", "object": "model"}]}), "application/json")

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = [message["content"] for message in request["messages"]]
        parts = [part if isinstance(part, str) else "".join(piece["text"] for piece in part) for part in parts]
        prompts.append("".join(parts))
        count = request.get("max_completion_tokens") or request["max_tokens"]
        usage = {"prompt_tokens": len(prompts[-1]), "completion_tokens": count, "total_tokens": 0}
        events = [{"choices": [{"index": 0, "delta": {"content": "a" * count}, "finish_reason": None}]},
                  {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}, {"choices": [], "usage": usage}]
        lines = [json.dumps(event | {"id": "1", "object": "chat.completion.chunk", "model": "any"}) for event in events]
        self.reply("".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]), "text/event-stream")

    def log_message(self, *_):
        pass


def shared(one, other):
    return len(os.path.commonprefix([one, other]))


def report(name, lengths, reused):
    """Print what a replay amounts to; return its longest prompt and its computed tokens."""
    sent, computed = sum(lengths), sum(lengths) - sum(reused)
    print(f"{name}: longest {max(lengths)}, sent {sent}, computed {computed}, shared {sum(reused) / sent:.2f}")
    return max(lengths), computed


# A token is a letter, so texts can be counted as they are.
letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
tokenizer.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(WORK / "tokenizer")
server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()

recorded = [row["in"] for row in ROWS]
found = [report("recorded", recorded, [0, *recorded[:-1]])]
complete, told = True, False
for name, (kind, lines) in TRACES.items():
    path = WORK / "trace.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompts.clear()
    data = {"kind": kind, "hash_id_block_size": BLOCK, "source": {"kind": "json_file", "path": str(path)}}
    run = subprocess.run(
        [sys.executable, "-m", "guidellm", "run", "--profile", "kind=replay", "--data", json.dumps(data),
         "--backend", f"kind=openai_http,target=http://127.0.0.1:{server.server_port},model=any",
         "--tokenizer", f"kind=huggingface_auto,model={WORK / 'tokenizer'}",
         "--output", f"kind=json,path={WORK / 'report.json'}"],
        capture_output=True, text=True, cwd=WORK, check=True)
    said = run.stdout.partition("Warnings (")[2] + "".join(l for l in run.stderr.splitlines() if "WARNING" in l)
    told |= any(word in said.lower() for word in ("prompt", "history", "context", "input"))
    # Sessions of their own overlap in time; their prompts are put in the order of the trace, which is that of length.
    sent = sorted(prompts, key=len)
    reused = [max((shared(prompt, before) for before in sent[:turn]), default=0) for turn, prompt in enumerate(sent)]
    found.append(report(name, [len(prompt) for prompt in sent], reused))
    complete &= len(sent) == len(ROWS)
right, session, single, mooncake = found
sys.exit(not (complete and not told and single == mooncake == right and min(session[0], session[1]) > 7 * right[1]))
PYTHON
