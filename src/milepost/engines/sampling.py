"""From logits to the next token, as ``generate`` of transformers: processors, then the likeliest or a draw.

The processors are transformers' own (see ``generation_settings``). The random stream is ours: one a request,
on the CPU whatever the model's device, so requests never disturb each other and a seed means the same tokens
everywhere.
"""

import math
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import LogitsProcessorList

from milepost.errors import InvalidRequestError
from milepost.tokens import TokenArray

__all__ = ["Sampler", "Sampling", "TokenLogprobs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the tokens of one request are chosen. Processors may keep state, so no two requests share them.

    Attributes:
        processors: Change the logits, in this order.
        draws: Draw from the probabilities; else take the likeliest token.
        seed: Two requests with equal prompts and equal seeds draw equal tokens.
        num_logprobs: Log-probabilities to give of each token beside its own; None for none at all.
    """

    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)
    draws: bool = False
    seed: int = 0
    num_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities where one token was chosen, of the model itself: before any processor.

    Attributes:
        token: The token that was chosen.
        logprob: Its log-probability.
        top: The likeliest tokens and theirs, falling.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one request.

    Args:
        sampling: How.
        prompt: Its tokens: processors look at them and at the answer.
        device: The model's.
    """

    def __init__(self, sampling: Sampling, *, prompt: TokenArray, device: torch.device | str = "cpu") -> None:
        self._sampling = sampling
        self._generator = torch.Generator(device="cpu").manual_seed(sampling.seed)
        self._history: torch.Tensor | None = None
        self._length = prompt.size
        if sampling.processors:
            self._history = torch.from_numpy(prompt.astype("int64"))[None].to(device)

    @torch.inference_mode()
    def draw(self, logits: torch.Tensor) -> tuple[int, TokenLogprobs | None]:
        """Return the next token id from logits of shape ``[vocabulary_size]``, which are left as they are.

        Raises:
            InvalidRequestError: the processors leave no token, or the logits are no numbers.
        """
        # Processors may write into what they are given.
        scores = logits[None].to(torch.float32, copy=self._history is not None)
        if self._history is not None:
            seen = cast(Any, self._history[:, : self._length])
            scores = self._sampling.processors(seen, cast(Any, scores))
        token = self._choose(scores[0])
        if self._history is not None:
            self._remember(token)
        return token, self._logprobs(logits, token)

    def _remember(self, token: int) -> None:
        assert self._history is not None
        if self._length == self._history.shape[1]:
            # Twice as long: a token is appended in constant time, all in all.
            self._history = torch.cat((self._history, torch.zeros_like(self._history)), dim=1)
        self._history[0, self._length] = token
        self._length += 1

    def _choose(self, scores: torch.Tensor) -> int:
        likeliest = int(scores.argmax())
        best = float(scores[likeliest])
        if math.isnan(best) or (self._sampling.draws and best == math.inf):
            raise InvalidRequestError(
                f"the likeliest token's logit is {best}, so there is nothing to choose by; run the model in "
                "another dtype, or set remove_invalid_values in its generation_config"
            )
        if best == -math.inf:
            raise InvalidRequestError(
                "no token is allowed any more: every one is suppressed; allow some in generation_config "
                "(suppress_tokens, bad_words_ids, sequence_bias ...)"
            )
        if not self._sampling.draws:
            return likeliest
        return int(torch.multinomial(scores.softmax(dim=-1).cpu(), 1, generator=self._generator))

    def _logprobs(self, logits: torch.Tensor, token: int) -> TokenLogprobs | None:
        number = self._sampling.num_logprobs
        if number is None:
            return None
        logprobs = logits.to(torch.float32).log_softmax(dim=-1)
        values, tokens = logprobs.topk(number)
        return TokenLogprobs(
            token, float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True))
        )
