"""Calls one function in a process of its own: every run of vLLM starts cold, and gives all its memory back.

The process has vLLM on one core and in one piece, with nothing loaded that vLLM does not load itself.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["ChildFailedError", "call"]

_LAST_LINES = 30


class ChildFailedError(RuntimeError):
    """The process ended without a result; the message has the last that it printed."""


def call(function: str, argument: object) -> Any:
    """Return what ``function`` (``package.module:name``) returns for ``argument``, both picklable.

    Raises:
        ChildFailedError: it did not return.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, result, log = (Path(folder, name) for name in ("request", "result", "log"))
        request.write_bytes(pickle.dumps((function, argument)))
        with log.open("wb") as printed:
            ended = subprocess.run(
                [sys.executable, "-m", "benchmarks.vllm.child", str(request), str(result)],
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=_environment(),
                check=False,
            )
        if ended.returncode or not result.exists():
            lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            raise ChildFailedError(
                f"{function} failed with exit code {ended.returncode}; it printed:\n" + "\n".join(lines)
            )
        return pickle.loads(result.read_bytes())


def _environment() -> dict[str, str]:
    # A core that the parent may use, and the last: the first has the most to do for others.
    core = str(max(os.sched_getaffinity(0)))
    wanted = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": core,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return wanted | os.environ


def main() -> None:
    """Call the function that the first file names, and leave its result in the second."""
    request, result = map(Path, sys.argv[1:])
    function, argument = pickle.loads(request.read_bytes())
    module, name = function.split(":")
    result.write_bytes(pickle.dumps(getattr(import_module(module), name)(argument)))


if __name__ == "__main__":
    main()
