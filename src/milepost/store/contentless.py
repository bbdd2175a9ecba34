"""Payloads of known size and no content, for a cache that is replayed instead of served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from milepost.footprint import Footprint
from milepost.untracked import untracked

__all__ = ["ContentlessPayloads"]


@dataclass(frozen=True, slots=True)
class _State:
    num_bytes: int


@final
class ContentlessPayloads:
    """A source (see ``PayloadSource``) of payloads that weigh what the footprint says.

    Attributes:
        was_asked: Whether anything was handed out since this was last set back.
    """

    def __init__(self, footprint: Footprint, *, segment_tokens: int) -> None:
        self.was_asked = False
        self._footprint = footprint
        self._segment_tokens = segment_tokens

    def checkpoint(self, position: int) -> _State:
        """Return a state; before the windows are full, a smaller one."""
        self.was_asked = True
        return untracked(_State(self._footprint.checkpoint_bytes_at(position)))

    def kv_segments(self, start: int, end: int) -> Sequence[None]:
        """Return as many segments as lie in ``[start, end)``."""
        self.was_asked = True
        return (None,) * ((end - start) // self._segment_tokens)
