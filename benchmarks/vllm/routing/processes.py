"""vLLM servers and vllm-router as processes on loopback: started, waited for, and ended."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MODEL_NAME", "Running", "free_ports", "router", "router_command", "server"]

MODEL_NAME = "tiny"
_MOST_START_SECONDS, _MOST_STOP_SECONDS = 600, 30
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that was started, and may not answer yet."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Return as soon as it answers.

        Raises:
            RuntimeError: it has ended, or does not answer in time; the message has the last that it printed.
        """
        until = time.monotonic() + _MOST_START_SECONDS
        while not _answers(self.url):
            if self.process.poll() is not None or time.monotonic() > until:
                printed = self.log.read_text(errors="replace")[-3_000:]
                raise RuntimeError(f"{self.url} does not answer; it printed:\n{printed}")
            time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, next to one another."""
    while True:
        with socket.socket() as first:
            first.bind((_HOST, 0))
            ports = [first.getsockname()[1] + at for at in range(count)]
        if all(_is_free(port) for port in ports):
            return ports


def router_command() -> str | None:
    """Return where ``vllm-router`` is, beside this Python or on the path; None where it is not installed."""
    beside = Path(sys.executable).with_name("vllm-router")
    return str(beside) if beside.exists() else shutil.which("vllm-router")


@contextmanager
def server(
    model: Path, *, events_port: int, cores: Sequence[int], folder: Path, arguments: Sequence[str]
) -> Iterator[Running]:
    """Run a server of vLLM, one engine on each of ``cores``.

    Args:
        model: What it serves.
        events_port: Where its KV events are taken; the second engine's go to the next one.
        cores: Of this machine.
        folder: For its log and metrics.
        arguments: More of them.
    """
    (port,) = free_ports(1)
    metrics = folder / f"metrics {port}"
    metrics.mkdir()
    events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://{_HOST}:{events_port}",
    }
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", MODEL_NAME, "--dtype", "bfloat16"),
        *("--host", _HOST, "--port", str(port), "--max-model-len", "8192", "--enforce-eager"),
        *("--enable-prefix-caching", "--enable-prompt-tokens-details", "--enable-scale-out"),
        *("--kv-events-config", json.dumps(events), *arguments),
    ]
    environment = {
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, cores)),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
    }
    with _started(command, port=port, log=folder / f"server {port}.log", environment=environment) as running:
        yield running


@contextmanager
def router(
    command: str, workers: Sequence[str], *, policy: str, folder: Path, arguments: Sequence[str]
) -> Iterator[Running]:
    """Run vllm-router before ``workers``."""
    port, metrics_port = free_ports(2)
    started = [
        *(command, "--host", _HOST, "--port", str(port), "--policy", policy, "--log-level", "debug"),
        *("--prometheus-host", _HOST, "--prometheus-port", str(metrics_port)),
        *("--worker-urls", *workers, *arguments),
    ]
    with _started(started, port=port, log=folder / f"router {port}.log", environment={}) as running:
        yield running


@contextmanager
def _started(
    command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str]
) -> Iterator[Running]:
    with log.open("wb") as printed:
        # A session of its own: the engines are processes of theirs, and end with it.
        process = subprocess.Popen(
            command,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )
    try:
        yield Running(url=f"http://{_HOST}:{port}", log=log, process=process)
    finally:
        try:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_MOST_STOP_SECONDS)
        finally:
            # Also where who waits here is interrupted again.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        return port < 65_536 and tried.connect_ex((_HOST, port)) != 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
