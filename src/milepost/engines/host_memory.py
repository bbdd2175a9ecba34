"""The memory of a device's host, as room for states and pieces of KV beside the device's own."""

from collections.abc import Callable
from typing import Any, Protocol

from milepost.disk import Packed

__all__ = ["HostMemory", "PackedParts"]


class HostMemory(Protocol):
    """Keeps states and pieces of KV of a device in its host's memory."""

    def offload(self, part: Any) -> tuple[Any, int] | None:
        """Return ``part`` as it is kept there, with the bytes that it takes; None where there is no room. Its
        copy may still be on its way.
        """

    def reload(self, held: Any) -> Any:
        """Return a part like the one that was offloaded, on its device."""

    def discard(self, held: Any) -> None:
        """Let go of what was offloaded, which is not used again."""

    def settle(self) -> None:
        """Return once nothing is on its way."""

    def close(self) -> None:
        """Give up the memory that nothing lies in."""


class PackedParts:
    """Memory of the host where parts lie as bytes, copied while the caller waits; see :class:`HostMemory`.

    Args:
        pack: Returns a part as bytes.
        unpack: Returns a part made of them.
    """

    def __init__(self, pack: Callable[[Any], Packed], unpack: Callable[[Packed], Any]) -> None:
        self._pack = pack
        self._unpack = unpack

    def offload(self, part: Any) -> tuple[Packed, int]:
        """See :class:`HostMemory`."""
        return self._pack(part), part.num_bytes

    def reload(self, held: Packed) -> Any:
        """See :class:`HostMemory`."""
        return self._unpack(held)

    def discard(self, held: Packed) -> None:
        """It goes with its last reference."""

    def settle(self) -> None:
        """Nothing is ever on its way."""

    def close(self) -> None:
        """Nothing is held."""
