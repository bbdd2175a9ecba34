"""What is waited for of the scheduler's work where it is done while the model computes.

    python -m benchmarks.vllm.overhead      its last rows

vLLM's asynchronous scheduler, its default on GPUs, schedules a step while the model computes the one before
(``EngineCore.step_with_batch_queue``, two steps at most). Here its loop is driven with a clock of its own:
what the scheduler does takes the processor time that it takes, and a step of the model as long as one of a
small model on a fast GPU, which leaves the scheduler the least time:

    3 ms, and 10 microseconds for each token

What is waited for is the time that the model has nothing to do while there are requests, since the next step
is not scheduled yet; and the time that the end of an answer is held, while the scheduler takes it in. Each
client asks one request after the other, and takes a millisecond to read an answer. With one client, each
request comes to an engine that is idle: there is nothing that its first step could hide behind.
"""

import gc
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.printing import Row
from benchmarks.vllm.overhead import bare_server, diverging_prompts
from benchmarks.vllm.servers.bare_server import BareServer
from benchmarks.vllm.servers.settings import MILEPOST, STOCK
from benchmarks.vllm.traffic.asks import TokenArray

__all__ = ["measure"]

_SECONDS_PER_STEP, _SECONDS_PER_TOKEN = 3e-3, 10e-6
_SECONDS_TO_READ = 1e-3
_MOST_STEPS_AHEAD = 2
_ANSWER_TOKENS = 32
_NUM_BLOCKS, _MATCH_UNIT = 2_500, 64
_CLIENTS = (8, 1)
_NUM_WARM, _NUM_MEASURED = 150, 150
_MOST_MICROSECONDS = 100.0


def measure(folder: Path) -> list[Row]:
    """Return a row for each number of clients. It needs a process of its own.

    Args:
        folder: A model, for its configuration only.
    """
    return [_row(num_clients, *_waited(folder, num_clients)) for num_clients in _CLIENTS]


def _waited(folder: Path, num_clients: int) -> tuple["_Engine", "_Engine"]:
    """Return an engine with stock vLLM's scheduler and one with the plugin's, which have served the same.
    They go by turns, so that whatever else the machine does costs both.
    """
    engines = tuple(
        _Engine(bare_server(folder, setting, _NUM_BLOCKS, _MATCH_UNIT, is_async=True), num_clients)
        for setting in (STOCK, MILEPOST)
    )
    gc.freeze()
    turns = [engine.turns() for engine in engines]
    for _ in zip(*turns, strict=True):
        pass
    return engines[0], engines[1]


@dataclass(slots=True, eq=False)
class _Engine:
    """vLLM's loop around a scheduler, on a clock of its own."""

    server: BareServer
    num_clients: int
    now: float = 0.0
    model_free: float = 0.0
    waits: list[float] = field(default_factory=list)
    holds: list[float] = field(default_factory=list)
    scheduler_seconds: float = 0.0
    num_steps: int = 0
    _in_flight: deque[tuple[Any, Any, float]] = field(default_factory=deque)

    def turns(self) -> Iterator[None]:
        """Serve all prompts; yield after each that was asked."""
        scheduler = self.server.scheduler
        prompts = diverging_prompts(_NUM_WARM + _NUM_MEASURED)
        for index, prompt in enumerate(prompts):
            if index == _NUM_WARM:
                self.waits.clear()
                self.holds.clear()
                self.scheduler_seconds, self.num_steps = 0.0, 0
            self._add(index, prompt)
            while len(scheduler.requests) >= self.num_clients:
                self._step()
            if not scheduler.requests:
                self._come_to_rest()
            yield

    def _come_to_rest(self) -> None:
        """Take what is left to do when the last request is gone, in the time until the next one comes."""
        rests = self.now
        while self.server.scheduler.has_requests() or self._in_flight:
            self._step()
        self.now = self.model_free = max(self.now, rests + _SECONDS_TO_READ)

    def _add(self, index: int, prompt: TokenArray) -> None:
        request = self.server.request(index, prompt, answer_tokens=_ANSWER_TOKENS)
        with self._working():
            self.server.scheduler.add_request(request)

    def _step(self) -> None:
        if self.server.scheduler.has_requests() and self._schedule():
            return
        scheduled, made_up, comes_in = self._in_flight.popleft()
        begun = self.now = max(self.now, comes_in)
        with self._working():
            outputs = self.server.scheduler.update_from_output(scheduled, made_up)
        if any(output.finished for of_client in outputs.values() for output in of_client.outputs):
            self.holds.append(self.now - begun)

    def _schedule(self) -> bool:
        """Schedule a step; return whether another one may be, before the oldest has come in."""
        scheduler = self.server.scheduler
        with self._working():
            scheduled = scheduler.schedule()
        num_tokens = scheduled.total_num_scheduled_tokens
        if num_tokens:
            starts = max(self.now, self.model_free)
            self.waits.append(starts - self.model_free)
            self.model_free = starts + _SECONDS_PER_STEP + num_tokens * _SECONDS_PER_TOKEN
            self.num_steps += 1
            with self._working():
                scheduler.get_grammar_bitmask(scheduled)
        self._in_flight.append((scheduled, self.server.make_up(scheduled), self.model_free))
        return num_tokens > 0 and len(self._in_flight) < _MOST_STEPS_AHEAD

    def _working(self) -> "_Working":
        return _Working(self)


@dataclass(slots=True, eq=False)
class _Working:
    """A context whose processor time passes on an engine's clock."""

    engine: _Engine
    started: float = 0.0

    def __enter__(self) -> None:
        self.started = time.thread_time()

    def __exit__(self, *_: object) -> None:
        seconds = time.thread_time() - self.started
        self.engine.now += seconds
        self.engine.scheduler_seconds += seconds


def _row(num_clients: int, stock: _Engine, plugin: _Engine) -> Row:
    idle, idle_stock = (_microseconds(sum(engine.waits)) for engine in (plugin, stock))
    # Of each request, so that the few that the machine was busy with do not count.
    held, held_stock = (float(np.median(engine.holds)) * 1e6 for engine in (plugin, stock))
    took, took_stock = (_microseconds(engine.scheduler_seconds) for engine in (plugin, stock))
    extra = idle - idle_stock + held - held_stock
    return Row(
        name=f"async scheduler, {num_clients} client{'s' * (num_clients > 1)}",
        measured=f"{extra:+.0f} us a request waited for, of {took - took_stock:+.0f} us of work: "
        f"the model idle {idle_stock:.0f} -> {idle:.0f}, the answer held {held_stock:.0f} -> {held:.0f}",
        target=f"<= {_MOST_MICROSECONDS:.0f} us more than stock",
        reached=extra <= _MOST_MICROSECONDS,
        numbers={
            "idle_mean_us": idle,
            "stock_idle_mean_us": idle_stock,
            "held_p50_us": held,
            "stock_held_p50_us": held_stock,
            "work_mean_us": took,
            "stock_work_mean_us": took_stock,
            "steps": plugin.num_steps,
            "stock_steps": stock.num_steps,
        },
    )


def _microseconds(seconds: float) -> float:
    """Return what a sum over all requests that were measured comes to for one."""
    return seconds / _NUM_MEASURED * 1e6
