"""What is stored of a prompt, in the memory of a device's host: a shelf's payloads, part by part."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from milepost.engines.host_memory import HostMemory
from milepost.engines.payloads import StoredKV, StoredState
from milepost.tiers import HeldShelf

__all__ = ["host_shelf"]


def host_shelf(memory: HostMemory) -> HeldShelf:
    """Return a shelf for what an engine stores, in ``memory``."""
    payloads = _HostPayloads(memory)
    return HeldShelf(
        offload=payloads.offload,
        reload=payloads.reload,
        discard=payloads.discard,
        settle=memory.settle,
        close=memory.close,
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """A payload: of a state and perhaps a tail, or of a piece of KV."""

    digest: bytes
    state: Any = None
    tail: Any = None
    piece: Any = None

    @property
    def parts(self) -> list[Any]:
        return [each for each in (self.state, self.tail, self.piece) if each is not None]


class _HostPayloads:
    def __init__(self, memory: HostMemory) -> None:
        self._memory = memory

    def offload(self, payload: StoredState | StoredKV) -> tuple[_Held, int] | None:
        parts: dict[str, Any] = (
            {"piece": payload.piece}
            if isinstance(payload, StoredKV)
            else {"state": payload.state, "tail": payload.tail}
        )
        held: dict[str, Any] = {}
        num_bytes = 0
        # Nothing of it is held without the rest, also where that fails.
        with ExitStack() as unless_whole:
            for name, part in parts.items():
                if part is None:
                    continue
                moved = self._memory.offload(part)
                if moved is None:
                    return None
                held[name] = moved[0]
                num_bytes += moved[1]
                unless_whole.callback(self._memory.discard, moved[0])
            unless_whole.pop_all()
        return _Held(payload.digest, **held), num_bytes

    def reload(self, held: _Held) -> StoredState | StoredKV:
        reload = self._memory.reload
        if held.piece is not None:
            return StoredKV(piece=reload(held.piece), digest=held.digest)
        tail = None if held.tail is None else reload(held.tail)
        return StoredState(state=reload(held.state), tail=tail, digest=held.digest)

    def discard(self, held: _Held) -> None:
        for part in held.parts:
            self._memory.discard(part)
