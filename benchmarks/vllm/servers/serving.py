"""Sends a workload to a server and notes what came back; as soon as one request ends, the next one goes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.vllm.traffic.asks import FIRST_TOKEN, TokenArray, Workload

__all__ = ["Progress", "Served", "Server", "serve", "serving", "warm_up"]

# No request of a workload has it.
_WARM_UP_INDEX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a step has done for one request: its answer so far."""

    index: int
    answer: list[int]
    cached_tokens: int
    finished: bool


class Server(Protocol):
    """Takes requests, and works on all of them one step at a time."""

    def submit(self, index: int, prompt: TokenArray, *, answer_tokens: int) -> None:
        """Take request ``index``, which is to generate exactly ``answer_tokens``."""

    def step(self) -> list[Progress]:
        """Work on the requests that it has, and return those with new tokens."""

    def forget(self) -> None:
        """Empty the cache; nothing is running."""


def warm_up(server: Server, *, num_tokens: int) -> None:
    """Have one prompt answered, so that nothing is run for the first time later, and all of it forgotten."""
    server.submit(_WARM_UP_INDEX, np.full(num_tokens, FIRST_TOKEN, dtype=np.int32), answer_tokens=4)
    while not any(progress.finished for progress in server.step()):
        pass
    server.forget()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """One request that was answered."""

    index: int
    prompt: TokenArray
    answer: list[int]
    cached_tokens: int
    ttft_seconds: float


def serve(
    workload: Workload,
    server: Server,
    *,
    concurrency: int,
    after_request: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Served]:
    """Return the requests of ``workload`` in order of submission, answered; see :func:`serving`."""
    steps = serving(workload, server, concurrency=concurrency, after_request=after_request, clock=clock)
    return next(served for served in steps if served is not None)


def serving(
    workload: Workload,
    server: Server,
    *,
    concurrency: int,
    after_request: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[list[Served] | None]:
    """Yield None after each step, and in the end the requests in order of submission, answered.

    Args:
        workload: What to ask.
        server: Whom.
        concurrency: Most requests at a time. A request that follows another waits for its answer, and the
            next one that need not wait goes first.
        after_request: Called after each request that ended.
        clock: Seconds, for the times to the first token.
    """
    waiting = list(range(len(workload.asks)))
    prompts: dict[int, TokenArray] = {}
    answers: dict[int, list[int]] = {}
    cached: dict[int, int] = {}
    submitted: dict[int, float] = {}
    ttft_seconds: dict[int, float] = {}
    while len(answers) < len(workload.asks):
        while len(submitted) - len(answers) < concurrency:
            index = next(
                (index for index in waiting if workload.asks[index].follows in (None, *answers)), None
            )
            if index is None:
                break
            waiting.remove(index)
            prompts[index] = workload.prompt(index, prompts=prompts, answers=answers)
            submitted[index] = clock()
            server.submit(index, prompts[index], answer_tokens=workload.answer_tokens)
        for progress in server.step():
            ttft_seconds.setdefault(progress.index, clock() - submitted[progress.index])
            if progress.finished:
                answers[progress.index] = progress.answer
                cached[progress.index] = progress.cached_tokens
                after_request()
        if len(answers) < len(workload.asks):
            yield None
    yield [
        Served(
            index=index,
            prompt=prompts[index],
            answer=answers[index],
            cached_tokens=cached[index],
            ttft_seconds=ttft_seconds[index],
        )
        for index in submitted
    ]
