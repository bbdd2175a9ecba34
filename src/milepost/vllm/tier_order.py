"""In which order a tier's chunks go: by worth where prompts are known, else by recency."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Protocol, final

from milepost.vllm.tier_index import ServedPrompt, TierIndex

__all__ = ["ByRecency", "ByWorth", "Finished", "Order"]


class Finished(Protocol):
    """What vLLM tells of a request that is done."""

    @property
    def req_id(self) -> str:
        """Its name."""

    def get_offload_key_position(self, key: bytes) -> int | None:
        """Return how many tokens the prefix has that a chunk ends with."""


class Order(Protocol):
    """Which of the chunks that a tier holds go first."""

    def note_inserted(self, key: bytes) -> None:
        """Note a new chunk, of a request that runs."""

    def note_removed(self, key: bytes, *, is_lost: bool) -> None:
        """Note that a chunk is gone: chosen here, or lost."""

    def note_finished(self, key_groups: Sequence[Sequence[bytes]], request: Finished) -> None:
        """Learn from a request that is done, of the chunks that it has stored or loaded."""

    def candidates(self) -> Iterator[bytes]:
        """Yield chunks, the next to go first, until the caller has enough that may go; only then it takes
        them out.
        """

    def clear(self) -> None:
        """Note that all chunks are gone."""

    def check(self, keys: Set[bytes]) -> None:
        """Recompute what must hold beside a tier that has ``keys``."""


@final
class ByRecency(Order):
    """The checkpoints of the request that finished longest ago go first, the deepest of it before the others,
    all groups of a checkpoint one after the other; before them, what was behind the deepest whole one.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()
        self._groups: set[bytes] = set()

    def note_inserted(self, key: bytes) -> None:
        """See ``Order``."""
        self._keys[key] = None
        self._groups.add(key[-4:])

    def note_removed(self, key: bytes, *, is_lost: bool) -> None:
        """See ``Order``."""
        del self._keys[key]

    def note_finished(self, key_groups: Sequence[Sequence[bytes]], request: Finished) -> None:
        """See ``Order``."""
        by_position: dict[int, list[bytes]] = {}
        for key in (key for keys in key_groups for key in keys if key in self._keys):
            by_position.setdefault(request.get_offload_key_position(key) or 0, []).append(key)
        deepest_whole = max(
            (at for at, keys in by_position.items() if {key[-4:] for key in keys} == self._groups),
            default=None,
        )
        for position in sorted(by_position, reverse=True):
            is_useless = deepest_whole is not None and position > deepest_whole
            for key in by_position[position]:
                self._keys.move_to_end(key, last=not is_useless)

    def candidates(self) -> Iterator[bytes]:
        """See ``Order``."""
        yield from self._keys

    def clear(self) -> None:
        """See ``Order``."""
        self._keys.clear()

    def check(self, keys: Set[bytes]) -> None:
        """See ``Order``."""
        assert self._keys.keys() == keys


@final
class ByWorth(Order):
    """What no checkpoint needs goes first, then the checkpoint that is worth least, whole, and so on; what
    requests that run have just stored goes last, since nobody knows yet what it is good for.

    Args:
        index: What the checkpoints in the tier are worth.
        take_served: Returns what is known of a request that is done, once; None where nothing is.
    """

    def __init__(self, index: TierIndex, *, take_served: Callable[[str], ServedPrompt | None]) -> None:
        self._index = index
        self._take_served = take_served
        self._fresh: OrderedDict[bytes, None] = OrderedDict()
        self._loose: OrderedDict[bytes, None] = OrderedDict()

    def note_inserted(self, key: bytes) -> None:
        """See ``Order``."""
        self._fresh[key] = None

    def note_removed(self, key: bytes, *, is_lost: bool) -> None:
        """See ``Order``."""
        self._fresh.pop(key, None)
        self._loose.pop(key, None)
        if is_lost:
            self._index.note_lost(key)
            self._loosen(each for each in self._index.take_dropped() if each != key)

    def note_finished(self, key_groups: Sequence[Sequence[bytes]], request: Finished) -> None:
        """See ``Order``."""
        served = self._take_served(request.req_id)
        if served is not None:
            self._index.note_served(served)
            self._loosen(self._index.take_dropped())
        for key in (key for keys in reversed(key_groups) for key in reversed(keys)):
            if key in self._fresh or key in self._loose:
                self._fresh.pop(key, None)
                self._loose.pop(key, None)
                if not self._index.wants(key):
                    self._loose[key] = None

    def candidates(self) -> Iterator[bytes]:
        """See ``Order``."""
        yield from self._unwanted()
        while self._index.drop_least():
            dropped = self._index.take_dropped()
            self._loosen(dropped)
            yield from dropped
        yield from self._fresh

    def clear(self) -> None:
        """See ``Order``."""
        self._index.clear()
        self._fresh.clear()
        self._loose.clear()

    def check(self, keys: Set[bytes]) -> None:
        """See ``Order``."""
        self._index.check()
        assert self._fresh.keys() <= keys
        assert self._loose.keys() <= keys
        assert self._fresh.keys().isdisjoint(self._loose.keys())
        kept = {key for key in keys if self._index.wants(key)}
        assert self._fresh.keys() | self._loose.keys() | kept == keys, "a chunk is in no order"

    def _unwanted(self) -> Iterator[bytes]:
        """Yield what is loose still: a checkpoint may have come to need some."""
        needed: list[bytes] = []
        try:
            for key in self._loose:
                if self._index.wants(key):
                    needed.append(key)
                else:
                    yield key
        finally:
            for key in needed:
                del self._loose[key]

    def _loosen(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            if key not in self._fresh:
                self._loose[key] = None
