"""What a slower tier's cache holds in place of payloads: their names, and who else has the same."""

from collections.abc import Iterator, Sequence
from typing import Any, final

from milepost.disk.entry import Entry
from milepost.footprint import Footprint
from milepost.hosted_cache import HostedCache
from milepost.store import Checkpoint, PayloadSource
from milepost.tiers.prefix_keys import PrefixKeys

__all__ = ["Handle", "NewHandles", "Payloads"]


@final
class Handle:
    """Stands for one payload.

    Attributes:
        key: Its name on the shelf.
        num_bytes: What it takes in memory.
        is_shelved: Whether it was put there.
        is_dropped: Whether the tier has let go of it.
        copies: The same checkpoint in faster tiers, each with its cache, by that one's id.
    """

    __slots__ = ("copies", "is_dropped", "is_shelved", "key", "num_bytes")

    def __init__(self, key: str, num_bytes: int, *, is_shelved: bool = False) -> None:
        self.key = key
        self.num_bytes = num_bytes
        self.is_shelved = is_shelved
        self.is_dropped = False
        self.copies: dict[int, tuple[HostedCache, Checkpoint]] = {}


@final
class Payloads:
    """A source (see ``PayloadSource``) that several tiers ask for the same, each payload made once."""

    def __init__(self, source: PayloadSource, *, segment_tokens: int) -> None:
        self._source = source
        self._segment_tokens = segment_tokens
        self._segments: dict[int, Any] = {}

    def checkpoint(self, position: int) -> Any:
        """Return the state captured after ``position`` tokens."""
        return self._source.checkpoint(position)

    def kv_segments(self, start: int, end: int) -> list[Any]:
        """Return the KV of ``[start, end)``."""
        step = self._segment_tokens
        missing = [begin for begin in range(start, end, step) if begin not in self._segments]
        if missing:
            first, last = missing[0], missing[-1] + step
            made = self._source.kv_segments(first, last)
            for begin, payload in zip(range(first, last, step), made, strict=True):
                self._segments.setdefault(begin, payload)
        return [self._segments[begin] for begin in range(start, end, step)]


@final
class NewHandles:
    """A source of handles for the payloads of one prompt.

    Args:
        payloads: Of the prompt.
        keys: Their names.
        footprint: What they take.
        segment_tokens: Tokens of a KV segment.

    Attributes:
        states: Handed out, by position.
        segments: Handed out, by where the segment ends.
    """

    def __init__(
        self, payloads: PayloadSource, keys: PrefixKeys, *, footprint: Footprint, segment_tokens: int
    ) -> None:
        self.states: dict[int, tuple[Handle, Any]] = {}
        self.segments: dict[int, Handle] = {}
        self._payloads = payloads
        self._keys = keys
        self._segment_tokens = segment_tokens
        self._segment_bytes = segment_tokens * footprint.kv_bytes_per_token

    def checkpoint(self, position: int) -> Handle | None:
        """Return the handle of a state; None where there is no state."""
        payload = self._payloads.checkpoint(position)
        if payload is None:
            return None
        handle = Handle(self._keys.state(position), payload.num_bytes)
        self.states[position] = handle, payload
        return handle

    def kv_segments(self, start: int, end: int) -> Sequence[Handle]:
        """Return the handles of the segments of ``[start, end)``."""
        step = self._segment_tokens
        made = []
        for stop in range(start + step, end + 1, step):
            key = self._keys.segment(stop)
            assert key is not None
            made.append(Handle(key, self._segment_bytes))
            self.segments[stop] = made[-1]
        return made

    def kept(self, *, namespace: str, num_tokens: int) -> Iterator[tuple[Entry, Any, Handle]]:
        """Yield what no cache has dropped, each as an entry, its payload and its handle: KV first."""
        for end, handle in sorted(self.segments.items()):
            if not handle.is_dropped:
                (payload,) = self._payloads.kv_segments(end - self._segment_tokens, end)
                begin = end - self._segment_tokens
                yield self._entry(handle, "kv", begin, end, payload, namespace, num_tokens), payload, handle
        for position, (handle, payload) in sorted(self.states.items()):
            if not handle.is_dropped:
                begin = position // self._segment_tokens * self._segment_tokens
                yield (
                    self._entry(handle, "state", begin, position, payload, namespace, num_tokens),
                    payload,
                    handle,
                )

    def _entry(
        self, handle: Handle, kind: str, start: int, end: int, payload: Any, namespace: str, num_tokens: int
    ) -> Entry:
        return Entry(
            key=handle.key,
            kind=kind,
            namespace=namespace,
            parent=self._keys.segment(start),
            start=start,
            end=end,
            tokens=self._keys.tokens(start, end),
            num_bytes=getattr(payload, "num_bytes", 0),
            prompt_tokens=num_tokens,
            digest=getattr(payload, "digest", b""),
        )
