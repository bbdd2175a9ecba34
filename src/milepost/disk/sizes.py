"""How many bytes payloads take, in memory and as they are stored; the totals are always at hand."""

__all__ = ["Sizes"]


class Sizes:
    """Sizes of payloads by key.

    Attributes:
        raw_bytes: Of all of them in memory.
        stored_bytes: Of all of them as they are stored.
    """

    def __init__(self) -> None:
        self.raw_bytes = 0
        self.stored_bytes = 0
        self._by_key: dict[str, tuple[int, int]] = {}

    def add(self, key: str, *, raw_bytes: int, stored_bytes: int) -> None:
        """Enter a payload that is not there."""
        assert key not in self._by_key
        self._by_key[key] = raw_bytes, stored_bytes
        self.raw_bytes += raw_bytes
        self.stored_bytes += stored_bytes

    def remove(self, key: str) -> None:
        """Take out a payload that is there."""
        raw_bytes, stored_bytes = self._by_key.pop(key)
        self.raw_bytes -= raw_bytes
        self.stored_bytes -= stored_bytes

    def stored(self, key: str) -> int | None:
        """Return what a payload takes as it is stored, None where there is none."""
        found = self._by_key.get(key)
        return None if found is None else found[1]

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def check(self) -> None:
        """Recompute the totals."""
        assert self.raw_bytes == sum(raw for raw, _ in self._by_key.values())
        assert self.stored_bytes == sum(stored for _, stored in self._by_key.values())
