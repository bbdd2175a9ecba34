"""Where the payloads of a slower tier lie: put there by name, and brought back."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, final

from milepost.disk.entry import Entry

__all__ = ["HeldShelf", "Shelf"]


class Shelf(Protocol):
    """See the module. One thread calls it; what it does behind that thread's back is its own affair."""

    @property
    def raw_bytes(self) -> int:
        """Bytes that what lies here takes in memory."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that it takes here."""

    def put(self, entry: Entry, payload: Any) -> None:
        """Keep an immutable payload, now or soon. O(1)."""

    def fetch(self, keys: Sequence[str]) -> list[Any]:
        """Return payloads in order; None for one that is not there, or is not what its entry says."""

    def remove(self, keys: Sequence[str]) -> None:
        """Let go of payloads; unknown ones are fine."""

    def touch(self, keys: Sequence[str]) -> None:
        """Note that these were used just now."""

    def entries(self) -> Iterable[Entry]:
        """Return what lies here, the longest unused first."""

    def take_lost(self) -> Sequence[str]:
        """Return what could not be kept since this was last asked."""

    def flush(self) -> None:
        """Return once everything that was put lies here."""

    def close(self) -> None:
        """Flush, and let go of what this process holds."""


@final
class HeldShelf:
    """A shelf in the memory of this process, as the host's is beside a device.

    Args:
        offload: Returns a payload as it is kept here, with the bytes that it takes; None where there is no
            room for it, whatever the budget says.
        reload: Returns the payload that was offloaded.
        discard: Lets go of what was offloaded.
        settle: Returns once what was offloaded lies here.
        close: Lets go of all else.
    """

    def __init__(
        self,
        *,
        offload: Callable[[Any], tuple[Any, int] | None],
        reload: Callable[[Any], Any],
        discard: Callable[[Any], None] = lambda _: None,
        settle: Callable[[], None] = lambda: None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.raw_bytes = self.stored_bytes = 0
        self._offload = offload
        self._reload = reload
        self._discard = discard
        self._settle = settle
        self._close = close
        self._lost: list[str] = []
        self._held: dict[str, tuple[Entry, Any, int]] = {}

    def put(self, entry: Entry, payload: Any) -> None:
        """See :class:`Shelf`."""
        self.remove((entry.key,))
        offloaded = self._offload(payload)
        if offloaded is None:
            self._lost.append(entry.key)
            return
        moved, num_bytes = offloaded
        self._held[entry.key] = entry, moved, num_bytes
        self.raw_bytes += entry.num_bytes
        self.stored_bytes += num_bytes

    def fetch(self, keys: Sequence[str]) -> list[Any]:
        """See :class:`Shelf`."""
        found = (self._held.get(key) for key in keys)
        return [None if each is None else self._reload(each[1]) for each in found]

    def remove(self, keys: Sequence[str]) -> None:
        """See :class:`Shelf`."""
        for key in keys:
            held = self._held.pop(key, None)
            if held is not None:
                self.raw_bytes -= held[0].num_bytes
                self.stored_bytes -= held[2]
                self._discard(held[1])

    def touch(self, keys: Sequence[str]) -> None:
        """See :class:`Shelf`."""
        for key in keys:
            if key in self._held:
                self._held[key] = self._held.pop(key)

    def entries(self) -> Iterable[Entry]:
        """See :class:`Shelf`."""
        return [entry for entry, _, _ in self._held.values()]

    def take_lost(self) -> Sequence[str]:
        """See :class:`Shelf`."""
        lost, self._lost = self._lost, []
        return lost

    def flush(self) -> None:
        """See :class:`Shelf`."""
        self._settle()

    def close(self) -> None:
        """See :class:`Shelf`."""
        self.remove(list(self._held))
        self._close()
