"""The same function on many arguments, over several processes, with nothing lost when it is stopped.

Each process starts from scratch (``spawn``), so nothing depends on what the parent has in memory, and it is
the same everywhere. Ctrl-C is for the parent alone: it stops handing out work, takes in what is finished, and
ends the processes.
"""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from milepost.errors import KernelCacheWarning, MilepostError
from milepost.interrupts import deferred_interrupts

__all__ = ["available_cores", "run_tasks"]

_Result = TypeVar("_Result")


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_tasks(
    function: Callable[..., _Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    jobs: int,
    take: Callable[[int, _Result], None],
) -> None:
    """Call ``function(*arguments[i])`` for every ``i``, and ``take(i, result)`` in this process as soon as it
    is done, in the order of finishing. One job runs here, without another process.

    Args:
        function: Of a module's top level, as its arguments a thing that can be pickled.
        arguments: In the order in which they are begun.
        jobs: Processes at once.
        take: Never interrupted by Ctrl-C; also called for what is done when something stops the rest.

    Raises:
        MilepostError: a process died. Errors of the function itself are passed on.
    """
    jobs = min(jobs, len(arguments))
    if jobs <= 1:
        for index, given in enumerate(arguments):
            result = function(*given)
            with deferred_interrupts():
                take(index, result)
        return
    with _processes(jobs) as executor:
        with _children_deaf_to_interrupts():
            futures = {executor.submit(function, *given): index for index, given in enumerate(arguments)}
        pending = dict(futures)
        try:
            for future in as_completed(futures):
                _hand_over(future, pending, take)
        except BrokenProcessPool as error:
            raise MilepostError(
                "a process of the sweep died, probably for want of memory; what is finished is kept: run it "
                "again with fewer --jobs"
            ) from error
        finally:
            # What was done while something else failed is not done again.
            for future in list(pending):
                if future.done() and not future.cancelled() and future.exception() is None:
                    _hand_over(future, pending, take)


def _hand_over(
    future: "Future[_Result]", pending: dict["Future[_Result]", int], take: Callable[[int, _Result], None]
) -> None:
    result = future.result()
    with deferred_interrupts():
        take(pending.pop(future), result)


@contextmanager
def _processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Give an executor, and end its processes at once if something goes wrong."""
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_child
    )
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    executor.shutdown()


@contextmanager
def _children_deaf_to_interrupts() -> Iterator[None]:
    """Let processes started inside the block be born with Ctrl-C blocked: before its first line of ours, a
    new interpreter would answer it with a traceback. Here, one that arrives in between waits for the end.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _begin_child() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent has parsed the policies, and said so.
    warnings.simplefilter("ignore", KernelCacheWarning)
