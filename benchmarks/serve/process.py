"""A server in a process of its own, as people start it."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

__all__ = ["Server", "served"]

_START_SECONDS = 120


class Server:
    """A running ``milepost serve``.

    Args:
        options: Of the command line, the model among them.
        core: The processor that it is kept on; any where None.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, options: Sequence[str], *, core: int | None = None) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            # A line a request would fill the pipe, which nobody reads any more once the URL has come.
            [sys.executable, "-m", "milepost", "serve", *options, "--port", "0", "--log-level", "warning"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        if core is not None:
            psutil.Process(self._process.pid).cpu_affinity([core])
        self.url = self._read_url()

    def _read_url(self) -> str:
        assert self._process.stderr is not None
        deadline = time.monotonic() + _START_SECONDS
        seen = ""
        while time.monotonic() < deadline and self._process.poll() is None:
            if not select.select([self._process.stderr], [], [], 0.2)[0]:
                continue
            line = self._process.stderr.readline()
            seen += line
            if " on http" in line:
                url = line.split(" on ")[1].split()[0]
                while httpx.get(f"{url}/health").status_code != httpx.codes.OK:
                    time.sleep(0.02)
                return url
        self.kill()
        raise RuntimeError(f"the server did not start:\n{seen}")

    @property
    def resident_bytes(self) -> int:
        """Memory that the process holds."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """End it as its owner does; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=60)


@contextmanager
def served(options: Sequence[str], *, core: int | None = None) -> Iterator[Server]:
    """Serve while open."""
    server = Server(options, core=core)
    try:
        yield server
    finally:
        server.stop()


def cache_options(folder: Path) -> list[str]:
    """Return the options of a server whose cache survives it."""
    return ["--cache-dir", str(folder), "--disk-capacity", "4GiB"]
