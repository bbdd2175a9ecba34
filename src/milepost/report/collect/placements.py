"""Where checkpoints were placed: every one relative to its prompt, and a sample of prompts in full."""

import random
from dataclasses import dataclass
from typing import final

from milepost.accounting import RequestReport
from milepost.errors import ConfigurationError
from milepost.placement import Placement, PlacementRequest

__all__ = ["PlacedPositions", "PromptSample", "SampledPrompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledPrompt:
    """One prompt and what was decided about it; positions count tokens from its start.

    Attributes:
        number: Which request it was, from 1.
        num_tokens: Its length.
        overlap_depth: Where it diverged from all earlier prompts.
        resume_position: Where it resumed.
        reached_position: The deepest that a state was ever stored for it; up to there, one was dropped.
        usable_position: The deepest that it could have resumed from.
        placed: Where states were captured for later requests.
    """

    number: int
    num_tokens: int
    overlap_depth: int
    resume_position: int
    reached_position: int
    usable_position: int
    placed: tuple[int, ...]


@final
class PromptSample:
    """A uniform sample of requests, in order of arrival.

    Vitter's reservoir: the choice depends on the seed and the number of requests alone, so the samples of
    several policies on one trace are the same requests.
    """

    def __init__(self, *, size: int = 24, seed: int = 0) -> None:
        if size < 1:
            raise ConfigurationError(f"size={size}; a sample has at least 1 prompt")
        self._size = size
        self._random = random.Random(seed)
        self._chosen: list[SampledPrompt] = []
        self._num_seen = 0

    def add(self, request: PlacementRequest, placement: Placement, report: RequestReport) -> None:
        """Consider one request. O(1), and O(positions) where it is chosen."""
        self._num_seen += 1
        if len(self._chosen) < self._size:
            self._chosen.append(self._sampled(request, placement, report))
            return
        slot = self._random.randrange(self._num_seen)
        if slot < self._size:
            self._chosen[slot] = self._sampled(request, placement, report)

    @property
    def prompts(self) -> tuple[SampledPrompt, ...]:
        """The sample, in order of arrival."""
        return tuple(sorted(self._chosen, key=lambda prompt: prompt.number))

    def _sampled(
        self, request: PlacementRequest, placement: Placement, report: RequestReport
    ) -> SampledPrompt:
        return SampledPrompt(
            number=self._num_seen,
            num_tokens=request.num_tokens,
            overlap_depth=request.overlap_depth,
            resume_position=request.resume_position,
            reached_position=request.resume_position + report.eviction + report.reset,
            usable_position=request.overlap_depth - report.alignment,
            placed=placement.positions,
        )


@final
class PlacedPositions:
    """How many checkpoints were placed in each part of the prompts, from first token to last."""

    def __init__(self, *, num_parts: int = 20) -> None:
        if num_parts < 1:
            raise ConfigurationError(f"num_parts={num_parts}; give at least 1")
        self.counts = [0] * num_parts
        self.num_requests = 0

    def add(self, request: PlacementRequest, placement: Placement) -> None:
        """Count the checkpoints of one request. O(positions)."""
        self.num_requests += 1
        num_parts = len(self.counts)
        for position in placement.positions:
            # A checkpoint after the last token belongs to the last part.
            self.counts[min(num_parts - 1, position * num_parts // request.num_tokens)] += 1

    @property
    def total(self) -> int:
        """All checkpoints placed."""
        return sum(self.counts)
