"""Which payloads left the cache, told to the owner of their memory: each once, and none that stays."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from milepost.store.delivery import Delivery

__all__ = ["DropReports"]


@final
class DropReports:
    """Reports at once, but for what a commit drops: making room on a path may take KV of this very path,
    which is then put back.

    Args:
        on_drop: Told of the payloads; None where nobody asks.
    """

    def __init__(self, on_drop: Callable[[Sequence[Any]], None] | None) -> None:
        self._on_drop = on_drop
        self._waiting: list[Any] | None = None

    def note(self, payloads: Sequence[Any]) -> None:
        """Report ``payloads``, or have them wait for the end of the commit."""
        if self._waiting is not None:
            self._waiting += payloads
        elif self._on_drop is not None and payloads:
            self._on_drop(payloads)

    @contextmanager
    def gathered(self, delivery: "Delivery") -> Iterator[None]:
        """Report at the end: what was dropped for good, and what is left of ``delivery``."""
        self._waiting = []
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            restored = Counter(map(id, delivery.restored))
            dropped = []
            for payload in waiting:
                if restored[id(payload)]:
                    restored[id(payload)] -= 1
                else:
                    dropped.append(payload)
            self.note(dropped + delivery.left())
