"""Records that the cyclic garbage collector does not visit.

A cache remembers hundreds of thousands of prompts, nodes and checkpoints. Python's collector visits every
object that could be part of a cycle, all of them in one pass every few thousand requests, and the request
that meets the pass waits for it: 3.9 s at 62,000 checkpoints. So the long-lived records of a cache are taken
from the collector's lists. They are freed as all objects are, when their last reference goes.

Law
    Code that takes a record from the collector breaks every cycle that it is part of: when the record leaves
    the cache, and, for all that are left, when the cache itself goes (``RadixTree.__del__``). Nothing that
    the collector still visits may be reachable through such cycles alone.

``PyObject_GC_UnTrack`` is part of Python's stable C interface. Where an interpreter has none, records stay
with the collector: slower, and not otherwise different.
"""

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["untracked"]

T = TypeVar("T")


def _from_c_interface() -> Callable[[Any], None] | None:
    try:
        untrack = ctypes.pythonapi.PyObject_GC_UnTrack
    except (AttributeError, OSError):
        return None
    untrack.argtypes, untrack.restype = [ctypes.py_object], None
    return untrack


_untrack = _from_c_interface()


def untracked(record: T) -> T:
    """Take ``record`` from the collector's lists and return it. O(1), harmless when done twice.

    A dictionary comes back to the collector when something is put in, so it is taken out after each
    insertion.
    """
    if _untrack is not None:
        _untrack(record)
    return record
