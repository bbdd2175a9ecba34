"""One prompt through the model, in segments, with every planned state captured on the way.

Cuts are where exactness is decided. A kernel's rounding depends on how many rows it is given, so two runs
agree bit for bit only where they were cut alike. *Strict* cuts every prompt, cached or not, at every multiple
of the segment: the cuts before a position are then a function of the position alone, and a run that resumes
at one of them does from there on exactly what the cold run did. *Fast* cuts where a state is wanted and at
every eighth segment (other requests wait for their turns), which keeps the device busier and agrees with the
cold run to rounding.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from milepost.engines.transformers.driver import Driver, LiveCache
from milepost.engines.transformers.identity import PrefixDigests
from milepost.engines.transformers.snapshot import (
    KVSegment,
    StateSnapshot,
    build_cache,
    capture_state,
    slice_kv,
)
from milepost.lease import Lease
from milepost.placement import Placement

__all__ = ["Numerics", "Prefill", "StoredKV", "StoredState", "belongs_to"]

# Segments that fast numerics computes at once at most.
_FAST_SEGMENTS = 8


class Numerics(StrEnum):
    """What a warm run promises against a cold one."""

    STRICT = "strict"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class StoredState:
    """A checkpoint's payload: the state, and the KV since the last whole segment where it lies inside one."""

    snapshot: StateSnapshot
    tail: KVSegment | None
    digest: bytes

    @property
    def num_bytes(self) -> int:
        """Bytes that this payload keeps alive."""
        return self.snapshot.num_bytes + (0 if self.tail is None else self.tail.num_bytes)


@dataclass(frozen=True, slots=True)
class StoredKV:
    """A KV segment and whose it is."""

    segment: KVSegment
    digest: bytes

    @property
    def num_bytes(self) -> int:
        """Bytes that this payload keeps alive."""
        return self.segment.num_bytes


def belongs_to(lease: Lease, digests: PrefixDigests) -> bool:
    """Return whether everything that ``lease`` would resume from was computed for exactly these tokens."""
    stored: Sequence[StoredKV] = lease.kv_segments
    if any(piece.digest != digests.at(piece.segment.end) for piece in stored):
        return False
    state = lease.state
    return state is None or (
        isinstance(state, StoredState)
        and state.snapshot.position == lease.resume_position
        and state.digest == digests.at(lease.resume_position)
    )


class Prefill:
    """Computes one prompt from its resume position to its end; a source of payloads for the cache."""

    def __init__(
        self,
        *,
        driver: Driver,
        lease: Lease,
        placement: Placement,
        digests: PrefixDigests,
        segment_tokens: int,
        numerics: Numerics,
    ) -> None:
        self._driver = driver
        self._tokens = torch.from_numpy(lease.tokens.astype("int64")).to(driver.model.device)
        self._digests = digests
        self._segment_tokens = segment_tokens
        self._numerics = numerics
        self.placement = placement
        self._planned = frozenset(placement.positions)
        self._captured: dict[int, StoredState] = {}
        self.capture_seconds = 0.0
        self.live = self._resume(lease)
        self.logits: torch.Tensor | None = None

    @property
    def is_done(self) -> bool:
        """Whether the whole prompt has been computed."""
        return self.live.position >= self._tokens.numel()

    def step(self) -> None:
        """Compute up to the next cut, and capture the state after it where one was planned."""
        end = self._next_cut()
        self.logits = self._driver.advance(self.live, self._tokens[self.live.position : end])
        if end in self._planned:
            # A device works behind the clock's back: neither its prefill nor its copies may be missed.
            self._driver.wait_for_device()
            started = time.perf_counter()
            self._captured[end] = self._capture(end)
            self._driver.wait_for_device()
            self.capture_seconds += time.perf_counter() - started

    def advance(self, answer: Sequence[int]) -> torch.Tensor:
        """Compute the last token of ``answer``, which follows the prompt, and return its logits.

        Where it changes the positions of all tokens before it, they are computed anew first, in this turn.
        """
        last = torch.tensor(answer[-1:], device=self._tokens.device)
        if not self._driver.must_start_over(self.live):
            return self._driver.advance(self.live, last)
        tokens = torch.cat([self._tokens, torch.tensor(answer, device=self._tokens.device)])
        self.live = self._driver.start(num_tokens=tokens.numel())
        for piece in tokens.split(self._segment_tokens):
            logits = self._driver.advance(self.live, piece)
        return logits

    def checkpoint(self, position: int) -> StoredState:
        """Return the state captured at ``position`` (see ``PayloadSource``)."""
        return self._captured[position]

    def drop_captured(self) -> None:
        """Let go of what was captured, once the cache has taken what it keeps."""
        self._captured.clear()

    def kv_segments(self, start: int, end: int) -> list[StoredKV]:
        """Return the KV of ``[start, end)`` in whole segments (see ``PayloadSource``)."""
        return [
            StoredKV(segment=slice_kv(self.live.cache, begin, begin + self._segment_tokens), digest=digest)
            for begin in range(start, end, self._segment_tokens)
            for digest in (self._digests.at(begin + self._segment_tokens),)
        ]

    def _resume(self, lease: Lease) -> LiveCache:
        live = self._driver.start(num_tokens=self._tokens.numel())
        if lease.resume_position == 0:
            return live
        segments = [stored.segment for stored in lease.kv_segments]
        state = lease.state
        snapshot = None
        if isinstance(state, StoredState):
            snapshot = state.snapshot
            segments += [state.tail] if state.tail is not None else []
        live.cache = build_cache(snapshot, segments, new_cache=self._driver.new_cache)
        live.position = lease.resume_position
        return live

    def _next_cut(self) -> int:
        position, end = self.live.position, self._tokens.numel()
        is_strict = self._numerics is Numerics.STRICT
        longest = self._segment_tokens * (1 if is_strict else _FAST_SEGMENTS)
        # A multiple counted from the prompt's start: where a run begins does not move its cuts.
        end = min(end, (position // longest + 1) * longest)
        return end if is_strict else min((p for p in self._planned if position < p < end), default=end)

    def _capture(self, position: int) -> StoredState:
        boundary = position // self._segment_tokens * self._segment_tokens
        tail = slice_kv(self.live.cache, boundary, position) if boundary < position else None
        return StoredState(
            snapshot=capture_state(self.live.cache, position),
            tail=tail if tail is not None and tail.tensors else None,
            digest=self._digests.at(position),
        )
