"""How long the learned policy takes for a long trace that is parsed already, beside a plain dictionary."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.policies.dictionary_replay import replay_dictionary
from benchmarks.policies.points import CHECKPOINT_KV_TOKENS, TRACES
from milepost.simulator import simulate
from milepost.traces import open_trace

__all__ = ["Speed", "measure_speed"]

_CAPACITY_KV_TOKENS = 1_000_000
_REPETITIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Processor seconds, the best of three, of runs by turns in one process."""

    learned_seconds: float
    dictionary_seconds: float
    dictionary_reused_fraction: float
    num_requests: int


def measure_speed(folder: Path) -> Speed:
    (trace,) = (trace for trace in TRACES if trace.title == "agentic")
    requests = list(open_trace(trace.path_in(folder)))
    prompts = [(request.keys.tolist(), request.num_tokens) for request in requests]
    reused: list[int] = []

    def run_learned() -> None:
        # A known ceiling, so that only the policy's own run is measured.
        simulate(
            requests,
            policy="learned",
            capacity_kv_tokens=_CAPACITY_KV_TOKENS,
            checkpoint_kv_tokens=float(CHECKPOINT_KV_TOKENS),
            ceiling_fraction=1.0,
        )

    def run_dictionary() -> None:
        reused.append(
            replay_dictionary(
                prompts,
                block_tokens=requests[0].key_tokens,
                capacity_kv_tokens=_CAPACITY_KV_TOKENS,
                checkpoint_kv_tokens=CHECKPOINT_KV_TOKENS,
            )
        )

    learned, dictionary = [], []
    for _ in range(_REPETITIONS):
        learned.append(_seconds(run_learned))
        dictionary.append(_seconds(run_dictionary))
    return Speed(
        learned_seconds=min(learned),
        dictionary_seconds=min(dictionary),
        dictionary_reused_fraction=reused[0] / sum(request.num_tokens for request in requests),
        num_requests=len(requests),
    )


def _seconds(run: Callable[[], None]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started
