"""One owner at a time: a model, and the engines over it, take one call at once, and say so.

Requests are interleaved by turns, not by threads: a live cache, the tree and a family's fixes know no locks.
Two threads that call at once would mix them. So each call holds its model while it runs, and a second one
gets an error at once instead of waiting: to wait, put a queue or a lock in front. Between calls
nobody holds anything, a stream between two of its tokens neither.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch

from milepost.errors import ConcurrentUseError

__all__ = ["Ownership", "ownership_of"]


class Ownership:
    """Who is at work on one model. Calls inside calls of the same thread are let through, turns in turns not:
    what runs inside a turn (a hook of the model, a signal) finds a request half done.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner = ""
        self._has_turn = False

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Hold the model while open.

        Raises:
            ConcurrentUseError: another thread holds it.
        """
        if not self._lock.acquire(blocking=False):
            raise ConcurrentUseError(
                f"{name} was called from thread {threading.current_thread().name!r} while thread "
                f"{self._owner!r} is at work on the same model; let one thread own all engines of a model "
                "and give it a queue, or put one lock around all calls"
            )
        try:
            self._owner = threading.current_thread().name
            yield
        finally:
            self._lock.release()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """Hold the model while a request is advanced.

        Raises:
            ConcurrentUseError: another thread holds it, or this one is in the middle of a turn.
        """
        with self.call(name):
            if self._has_turn:
                raise ConcurrentUseError(
                    f"{name} was called in the middle of a turn, as by a hook of the model; call it between "
                    "turns, as on_step does"
                )
            self._has_turn = True
            try:
                yield
            finally:
                self._has_turn = False


_owners: WeakKeyDictionary[torch.nn.Module, Ownership] = WeakKeyDictionary()
_registration = threading.Lock()


def ownership_of(model: torch.nn.Module) -> Ownership:
    """Return the ownership of ``model``, the same for all engines over it. Nothing is put on the model."""
    with _registration:
        return _owners.setdefault(model, Ownership())
