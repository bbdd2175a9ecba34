"""How the beginnings of conversations are rendered, remembered from request to request.

To know where a message ends, the messages up to it are rendered. The next turn of a conversation begins with
the same messages, so without a memory its n-th turn would render n beginnings again, n²/2 in all. What is
remembered of one is its length and a digest: whether a prompt begins so is looked at every time.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import xxhash

__all__ = ["Head", "HeadMemory"]


@dataclass(frozen=True, slots=True)
class Head:
    """The rendering of the beginning of a conversation, by its length in characters and its digest."""

    length: int
    digest: bytes

    @classmethod
    def of(cls, text: str) -> "Head":
        """Return the head that is ``text``. O(characters)."""
        return cls(len(text), _digest(text))

    def begins(self, text: str) -> bool:
        """Return whether ``text`` begins with it. O(characters)."""
        return len(text) >= self.length and _digest(text[: self.length]) == self.digest


class HeadMemory:
    """Remembers the heads that were asked for last.

    Args:
        most_heads: How many; each takes about 200 bytes.
    """

    def __init__(self, *, most_heads: int = 16_384) -> None:
        self._most_heads = most_heads
        self._heads: OrderedDict[bytes, Head | None] = OrderedDict()

    def get(self, key: bytes, render: Callable[[], str | None]) -> Head | None:
        """Return the head called ``key``, rendered where it is not known; None where it cannot be."""
        if key in self._heads:
            self._heads.move_to_end(key)
            return self._heads[key]
        text = render()
        head = None if text is None else Head.of(text)
        self._heads[key] = head
        if len(self._heads) > self._most_heads:
            self._heads.popitem(last=False)
        return head


def _digest(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode(errors="surrogatepass"))
