"""What is stored of a prompt: states and pieces of KV, each with a digest that says whose it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from milepost.engines.base import Driver, KVPiece, LiveSequence, State
from milepost.engines.digests import PrefixDigests
from milepost.lease import Lease

__all__ = ["SequencePayloads", "StoredKV", "StoredState", "belongs_to"]


@dataclass(frozen=True, slots=True)
class StoredState:
    """A checkpoint's payload: the state, and the KV since the last whole segment where it lies inside one."""

    state: State
    tail: KVPiece | None
    digest: bytes

    @property
    def num_bytes(self) -> int:
        """Bytes that this payload keeps alive."""
        return self.state.num_bytes + (0 if self.tail is None else self.tail.num_bytes)


@dataclass(frozen=True, slots=True)
class StoredKV:
    """A KV segment and whose it is."""

    piece: KVPiece
    digest: bytes

    @property
    def num_bytes(self) -> int:
        """Bytes that this payload keeps alive."""
        return self.piece.num_bytes


def belongs_to(lease: Lease, digests: PrefixDigests) -> bool:
    """Return whether everything that ``lease`` would resume from was computed for exactly these tokens."""
    stored: Sequence[StoredKV] = lease.kv_segments
    if any(each.digest != digests.at(each.piece.end) for each in stored):
        return False
    state = lease.state
    return state is None or (
        isinstance(state, StoredState)
        and state.state.position == lease.resume_position
        and state.digest == digests.at(lease.resume_position)
    )


class SequencePayloads:
    """The payloads of one sequence: states as they were captured on its way, KV as it is asked for (see
    ``PayloadSource``).

    Args:
        driver: Runs the sequence.
        sequence: Whose.
        digests: Of its tokens.
        segment_tokens: KV is stored in pieces of this many.
    """

    def __init__(
        self, driver: Driver, sequence: LiveSequence, *, digests: PrefixDigests, segment_tokens: int
    ) -> None:
        self._driver = driver
        self._sequence = sequence
        self._digests = digests
        self._segment_tokens = segment_tokens
        self._captured: dict[int, StoredState] = {}

    @property
    def positions(self) -> tuple[int, ...]:
        """Where states were captured so far, ascending."""
        return tuple(self._captured)

    def capture(self) -> None:
        """Take the state where the sequence stands."""
        self.add(self._driver.capture(self._sequence))

    def add(self, state: State) -> None:
        """Take a state of the sequence, where it stands or has passed; later than those before."""
        position = state.position
        boundary = position // self._segment_tokens * self._segment_tokens
        tail = self._driver.kv(self._sequence, boundary, position) if boundary < position else None
        self._captured[position] = StoredState(
            state=state,
            tail=tail if tail is not None and tail.num_bytes else None,
            digest=self._digests.at(position),
        )

    def checkpoint(self, position: int) -> StoredState:
        """Return the state captured at ``position``."""
        return self._captured[position]

    def kv_segments(self, start: int, end: int) -> list[StoredKV]:
        """Return the KV of ``[start, end)`` in whole segments."""
        step = self._segment_tokens
        return [
            StoredKV(
                piece=self._driver.kv(self._sequence, begin, begin + step),
                digest=self._digests.at(begin + step),
            )
            for begin in range(start, end, step)
        ]

    def drop(self) -> None:
        """Let go of what was captured, once the cache has taken what it keeps."""
        self._captured.clear()
