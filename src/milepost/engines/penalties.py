"""Presence and frequency penalties, as OpenAI's API and vLLM have them: over the tokens of the answer alone.

transformers has no processor for them. Its place is that of a processor of the caller's own: after those
that the model's settings ask for, before temperature and what follows it.
"""

import torch
from transformers import LogitsProcessor

__all__ = ["AnswerPenalties"]


class AnswerPenalties(LogitsProcessor):
    """Lowers what the answer already holds: by ``presence`` each, and by ``frequency`` for every time.

    Args:
        presence: Taken off once from the logit of each token in the answer.
        frequency: Taken off as often as the token is in the answer.
        num_prompt_tokens: Where in the ids the answer begins.

    Complexity: O(tokens of the answer · log) per call, whatever the prompt's length.
    """

    def __init__(self, *, presence: float, frequency: float, num_prompt_tokens: int) -> None:
        self._presence = presence
        self._frequency = frequency
        self._start = num_prompt_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of shape ``[1, vocabulary_size]`` after ids of shape ``[1, num_tokens]``."""
        tokens, counts = input_ids[0, self._start :].unique(return_counts=True)
        lowered = scores.clone()
        lowered[0, tokens] -= self._presence + self._frequency * counts.to(scores.dtype)
        return lowered
