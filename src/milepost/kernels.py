"""Compiled kernels: plain functions over arrays and numbers that numba compiles when they are first called.

Law
    A kernel has one signature, so it is compiled once for all that it will be called with; an array of
    another type is a ``TypeError``. Importing a module of kernels imports no numba. Ctrl-C waits while one is
    compiled: the compiler calls back into Python through C, where an interrupt is lost.

Where they are kept
    In the first of these folders that can be written, as numba has it: ``NUMBA_CACHE_DIR``, the
    ``__pycache__`` beside the source, the user's cache folder. Where there is none, or writing fails (a full
    disk), everything works as well, and one :class:`~milepost.errors.KernelCacheWarning` says that kernels
    are compiled anew in every process. What is damaged is written again, and what was compiled for another
    processor is another entry. Processes that compile at the same time do not disturb each other.

A kernel may call other kernels of its own file: a kept one is out of date when its file changes, not others.
"""

import logging
import warnings
from collections.abc import Callable
from functools import cache, update_wrapper
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast, final

from milepost.errors import KernelCacheWarning
from milepost.interrupts import deferred_interrupts

__all__ = ["Kernel", "kernel"]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


def kernel(signature: str) -> Callable[[Callable[P, R]], "Kernel[P, R]"]:
    """Make a function a kernel::

        @kernel("int64(int64[::1], int64)")
        def first_above(numbers, bound): ...

    Args:
        signature: Of numba's: the result's type, and those of the arguments.
    """
    return lambda function: Kernel(function, signature)


@final
class Kernel(Generic[P, R]):
    """A function that is compiled when it is first called. Takes its arguments by position."""

    def __init__(self, function: Callable[P, R], signature: str) -> None:
        self._function = function
        self._signature = signature
        self._compiled: Callable[P, R] | None = None
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it."""
        return (self._compiled or self.compiled())(*args, **kwargs)

    @property
    def is_compiled(self) -> bool:
        """Whether a call would wait for nothing."""
        return self._compiled is not None

    def compiled(self) -> Callable[P, R]:
        """Return the compiled function; ask for it before the first request, and none waits for it."""
        if self._compiled is None:
            with deferred_interrupts():
                function = self._with_compiled_callees()
                self._compiled = cast(Callable[P, R], _keeper.compiled(function, self._signature))
        return self._compiled

    def _with_compiled_callees(self) -> FunctionType:
        """Return the function with the kernels it calls as numba knows them."""
        function = cast(FunctionType, self._function)
        names = {name: function.__globals__.get(name) for name in function.__code__.co_names}
        callees = {name: each.compiled() for name, each in names.items() if isinstance(each, Kernel)}
        return FunctionType(function.__code__, function.__globals__ | callees)


class _Keeper:
    """Compiles, and keeps what is compiled for later processes while that can be done."""

    def __init__(self) -> None:
        self._can_keep = True

    def compiled(self, function: FunctionType, signature: str) -> Any:
        """Return the function compiled for one signature, or itself where numba is switched off."""
        from numba import njit
        from numba.core import event

        unkept: Any = njit(function)
        if unkept is function:
            return function
        with event.install_listener("numba:compile", _announcement()):
            dispatcher = self._kept(function, signature) if self._can_keep else None
            if dispatcher is None:
                dispatcher = unkept
                dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher

    def _kept(self, function: FunctionType, signature: str) -> Any:
        """Return it as it was kept, or compiled and kept; None where neither can be."""
        from numba import njit

        try:
            dispatcher: Any = njit(cache=True)(function)
        except RuntimeError as error:
            no_folder = "no locator" in str(error)
            return self._give_up(
                "this user can write none of the folders for them" if no_folder else str(error)
            )
        try:
            dispatcher.compile(signature)
        except Exception as error:  # whatever a damaged file makes pickle raise, or a full disk
            if dispatcher.signatures:
                # Compiled, but not written.
                self._give_up(str(error))
                return dispatcher
            return self._mended(dispatcher, signature)
        return dispatcher

    def _mended(self, dispatcher: Any, signature: str) -> Any:
        """Drop what is kept of this kernel, and compile and keep it anew."""
        try:
            dispatcher.recompile()
            dispatcher.compile(signature)
        except Exception as error:
            self._give_up(str(error))
            return dispatcher if dispatcher.signatures else None
        _log.info("a kept kernel was damaged, and has been made anew")
        return dispatcher

    def _give_up(self, reason: str) -> None:
        self._can_keep = False
        warnings.warn(
            f"compiled kernels cannot be kept ({reason}), so each process compiles them anew, a few seconds "
            "of work; set NUMBA_CACHE_DIR to a folder that this user can write",
            KernelCacheWarning,
            stacklevel=2,
        )


_keeper = _Keeper()


def _announcement() -> Any:
    """Return a listener that says, once, that the compiler is at work."""
    from numba.core.event import Listener

    class Announcement(Listener):
        def on_start(self, event: Any) -> None:
            _announce()

        def on_end(self, event: Any) -> None:
            pass

    return Announcement()


@cache
def _announce() -> None:
    _log.info("compiling kernels, once for this version of Milepost on this machine: a few seconds")
