"""A real server on a free port of this machine, over a tiny model, for real clients."""

import asyncio
import threading
import time
from contextlib import contextmanager

import httpx
import torch
import uvicorn
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

from chat_tokenizer import chat_tokenizer
from milepost.engines.engine import Engine
from milepost.server.admission import Admission
from milepost.server.app import build_app
from milepost.server.listening import bind
from milepost.server.settings import ServeSettings
from milepost.server.worker import Worker

MODEL = "tiny"


def tiny_model():
    """A hybrid whose ids are those of the byte tokenizer."""
    config = Qwen3_5TextConfig(
        vocab_size=272,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        layer_types=["linear_attention", "full_attention"],
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        max_position_embeddings=8192,
        initializer_range=0.15,
        tie_word_embeddings=True,
        eos_token_id=257,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Qwen3_5ForCausalLM(config).eval()


def open_engine(**options):
    defaults = {"tokenizer": chat_tokenizer(single="$A"), "capacity": "64MiB", "segment_tokens": 64}
    return Engine.open(tiny_model(), **(defaults | options))


class Running:
    """A server that runs in a thread of its own.

    Attributes:
        url: Where it listens.
        worker: Its own.
    """

    def __init__(self, engine, settings, *, max_waiting, live_capacity_bytes):
        self.engine = engine
        self.worker = Worker(
            engine,
            admission=Admission(
                footprint=engine.footprint,
                max_running=engine.max_running,
                max_waiting=max_waiting,
                live_capacity_bytes=live_capacity_bytes,
            ),
            stream_interval_seconds=settings.stream_interval_ms / 1e3,
        )
        self.app = build_app(self.worker, settings)
        self._listener = bind(settings)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_config=None, access_log=False, lifespan="on", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        asyncio.run(self._server.serve(sockets=[self._listener]))

    def start(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self):
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def wait_until_idle(self):
        for _ in range(1000):
            if not self.worker.num_running and not self.worker.num_waiting:
                return
            time.sleep(0.01)
        raise AssertionError("requests are still running")


@contextmanager
def running(*, max_waiting=64, live_capacity_bytes=1 << 30, engine_options=None, **settings):
    engine = open_engine(**(engine_options or {}))
    checked = ServeSettings.checked(model_name=MODEL, port=0, **settings)
    server = Running(engine, checked, max_waiting=max_waiting, live_capacity_bytes=live_capacity_bytes)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def complete(server, prompt, **options):
    """What a server answers to a prompt."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 6} | options
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
