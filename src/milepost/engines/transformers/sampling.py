"""From logits to the next token: greedy, or drawn with temperature, top-k and top-p from a seeded stream."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from milepost.errors import InvalidRequestError

__all__ = ["Sampler", "Sampling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 is greedy; above 0, logits are divided by it.
        top_k: Draw from this many most likely tokens; None for all.
        top_p: Draw from the fewest most likely tokens that hold this much probability.
        seed: Two requests with equal prompts and equal seeds draw equal tokens.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise InvalidRequestError(f"temperature={self.temperature}; give 0 (greedy) to 100")
        if self.top_k is not None and self.top_k < 1:
            raise InvalidRequestError(f"top_k={self.top_k}; give at least 1, or None for all tokens")
        if not 0.0 < self.top_p <= 1.0:
            raise InvalidRequestError(f"top_p={self.top_p}; give more than 0 and at most 1")
        if not -(2**63) <= self.seed < 2**64:
            raise InvalidRequestError(f"seed={self.seed}; give a whole number of at most 64 bits")


class Sampler:
    """Draws the tokens of one request. Its random stream is its own, so requests never disturb each other."""

    def __init__(self, sampling: Sampling) -> None:
        self._greedy = sampling.temperature == 0.0
        # On the CPU whatever the model's device: one seed, one stream, everywhere.
        self._generator = torch.Generator(device="cpu").manual_seed(sampling.seed)
        self._warpers = LogitsProcessorList()
        if not self._greedy:
            self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k is not None:
                self._warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1.0:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def draw(self, logits: torch.Tensor) -> int:
        """Return the next token id from logits of shape ``[vocabulary_size]``."""
        if self._greedy:
            return int(logits.argmax())
        # Shifted, and in double precision: no temperature, however low, divides to infinity or by zero.
        scores = logits.detach().to("cpu", torch.float64)[None]
        scores -= scores.max()
        no_history = cast(torch.LongTensor, torch.empty((1, 0), dtype=torch.long))
        warped = self._warpers(no_history, cast(Any, scores))
        return int(torch.multinomial(warped.softmax(dim=-1), 1, generator=self._generator))
