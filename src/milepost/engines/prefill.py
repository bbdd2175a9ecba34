"""One prompt through the model, in pieces, with every planned state captured on the way.

Cuts are where exactness is decided. A kernel's rounding depends on how many rows it is given, so two runs
agree bit for bit only where they were cut alike, or where the cut does not count. Which it is, is the
engine's to say (``Cuts``). *Strict* keeps to what it promises: a run that resumes does from there on exactly
what the cold run did. *Fast* cuts where a state is wanted and seldom else (other requests wait for their
turns), which keeps the device busier and agrees with the cold run to rounding.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import torch

from milepost.engines.base import Driver, LiveSequence, State
from milepost.engines.cuts import Cuts
from milepost.engines.digests import PrefixDigests
from milepost.engines.payloads import SequencePayloads, StoredState
from milepost.errors import ModelChangedError, UnsupportedModelError
from milepost.lease import Lease

__all__ = ["Numerics", "Prefill"]


class Numerics(StrEnum):
    """What a warm run promises against a cold one."""

    STRICT = "strict"
    FAST = "fast"


class Prefill:
    """Computes one prompt from its resume position to its end.

    Attributes:
        tokens: The prompt, on the engine's device.
        live: What has been computed.
        logits: Behind the last token that was, of shape ``[vocabulary_size]``.
        payloads: What was captured on the way, for the cache.

    Args:
        driver: Runs the model.
        lease: What the prompt resumes from, held until this is closed or done.
        planned: Where states are wanted.
        digests: Of the prompt.
        segment_tokens: KV is stored in pieces of this many.
        cuts: Where the prompt may be cut.
        sequence_tokens: Length of what the prompt is the beginning of; its own unless given.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        lease: Lease,
        planned: Sequence[int],
        digests: PrefixDigests,
        segment_tokens: int,
        cuts: Cuts,
        sequence_tokens: int | None = None,
    ) -> None:
        self._driver = driver
        self.tokens = torch.from_numpy(lease.tokens.astype("int64")).to(driver.device)
        self._cuts = cuts
        self._sequence_tokens = sequence_tokens or self.num_tokens
        self.planned = cuts.thinned(planned, start=lease.resume_position, num_tokens=self.num_tokens)
        self._captures: list[tuple[Any, Any]] = []
        self.live = self._resume(lease)
        self.payloads = SequencePayloads(driver, self.live, digests=digests, segment_tokens=segment_tokens)
        self.logits: torch.Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Length of the prompt."""
        return self.tokens.numel()

    @property
    def capture_seconds(self) -> float:
        """What capturing took; once the device has been waited for. O(states captured)."""
        return sum(self._driver.seconds_between(*each) for each in self._captures)

    @property
    def is_done(self) -> bool:
        """Whether the whole prompt has been computed."""
        return self.live.position >= self.num_tokens

    @property
    def is_at_last_piece(self) -> bool:
        """Whether the next cut is the prompt's end."""
        return self._cuts.next(self.live.position, self.num_tokens, self.planned) == self.num_tokens

    def plan_also(self, position: int) -> None:
        """Capture a state at ``position`` too, which lies ahead and on the grid, where a cut can be there."""
        planned = sorted({*self.planned, position})
        self.planned = self._cuts.thinned(planned, start=0, num_tokens=self.num_tokens)

    def step(self) -> None:
        """Compute up to the next cut, and capture the states on the way and after it that were planned."""
        start = self.live.position
        end = self._cuts.next(start, self.num_tokens, self.planned)
        inside = [each for each in self.planned if start < each < end]
        states: Sequence[State] = ()
        if inside:
            self.logits, states = self._advance_through(self.tokens[start:end], inside)
        else:
            self.logits = self._driver.advance(self.live, self.tokens[start:end])
        if inside or end in self.planned:
            # A device works behind the clock's back, and waiting for it at each state would have it idle.
            started = self._driver.moment()
            for state in states:
                self.payloads.add(state)
            if end in self.planned:
                self.payloads.capture()
            self._captures.append((started, self._driver.moment()))

    def start_over(self, answer: Sequence[int]) -> torch.Tensor:
        """Compute the prompt and ``answer`` anew, as a prompt, and return the logits after it: what a token
        costs that changes the positions of all before it.
        """
        tokens = torch.cat([self.tokens, torch.tensor(answer, device=self.tokens.device)])
        self._driver.close(self.live)
        self.live = self._driver.start(num_tokens=tokens.numel())
        while self.live.position < tokens.numel():
            end = self._cuts.next(self.live.position, tokens.numel(), ())
            logits = self._driver.advance(self.live, tokens[self.live.position : end])
        return logits

    def close(self) -> None:
        """Let go of what was computed."""
        self.payloads.drop()
        self._driver.close(self.live)

    def _advance_through(
        self, tokens: torch.Tensor, inside: Sequence[int]
    ) -> tuple[torch.Tensor, Sequence[State]]:
        try:
            return self._driver.advance_through(self.live, tokens, inside)
        except UnsupportedModelError as error:
            raise ModelChangedError(
                f"states could be taken from inside a call when the model was opened, and by now {error}: "
                "undo what was changed, or open it again"
            ) from error

    def _resume(self, lease: Lease) -> LiveSequence:
        position = lease.resume_position
        if position == 0:
            return self._driver.start(num_tokens=self._sequence_tokens)
        pieces = [stored.piece for stored in lease.kv_segments]
        stored = lease.state
        if isinstance(stored, StoredState):
            pieces += [stored.tail] if stored.tail is not None else []
            state = stored.state
        else:
            state = None
        return self._driver.restore(state, pieces, position=position, num_tokens=self._sequence_tokens)
