"""Ctrl-C at a safe moment: an interrupt that arrives inside a change of the cache waits until it is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["deferred_interrupts"]


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Hold back SIGINT inside the block and deliver it at the end. Free of effect outside the main thread,
    where Python delivers no interrupts.
    """
    previous = signal.getsignal(signal.SIGINT)
    # None: a handler that was not set from Python, which could not be put back.
    if previous is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if received:
            # Raised anew, so that handlers that are no functions (ignore, die) do what they do as well.
            signal.raise_signal(signal.SIGINT)
