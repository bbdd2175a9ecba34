"""A checkpoint on its way from a slower tier to faster ones: read when it is asked for, once."""

from collections.abc import Callable, Sequence
from typing import Any, final

from milepost.lease import Lease
from milepost.tiers.handles import Handle

__all__ = ["DamagedError", "Reading"]


class DamagedError(Exception):
    """A payload could not be read back.

    Attributes:
        segment_end: Where the KV segment ends that could not; 0 for a state.
    """

    def __init__(self, what: str, *, segment_end: int = 0) -> None:
        super().__init__(f"{what} could not be read back")
        self.segment_end = segment_end


@final
class Reading:
    """A source (see ``PayloadSource``) of what ``lease`` resumes from.

    Args:
        lease: Of the slower tier, held.
        read: Returns the payloads of handles, None for one that cannot be read.
        segment_tokens: Tokens of a KV segment.
    """

    def __init__(
        self, lease: Lease, read: Callable[[Sequence[Handle]], list[Any]], *, segment_tokens: int
    ) -> None:
        self._lease = lease
        self._read = read
        self._segment_tokens = segment_tokens
        self._state: Any = None

    def checkpoint(self, position: int) -> Any:
        """Return the state.

        Raises:
            DamagedError: it cannot be read.
        """
        assert position == self._lease.resume_position
        if self._state is None:
            handle = self._lease.state
            assert isinstance(handle, Handle)
            (self._state,) = self._read((handle,))
        if self._state is None:
            raise DamagedError(f"the state after {position} tokens")
        return self._state

    def kv_segments(self, start: int, end: int) -> list[Any]:
        """Return the KV of ``[start, end)``.

        Raises:
            DamagedError: some of it cannot be read.
        """
        step = self._segment_tokens
        payloads = self._read(self._lease.kv_segments[start // step : end // step])
        for index, payload in enumerate(payloads):
            if payload is None:
                stop = start + (index + 1) * step
                raise DamagedError(f"the KV of tokens {stop - step} to {stop}", segment_end=stop)
        return payloads
