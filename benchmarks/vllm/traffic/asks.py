"""What is asked of a server, in which order, and how much of it was said before.

A request either stands alone or follows another, whose whole prompt and answer it repeats before its own
tokens. So a conversation can be written down before any model has answered it.

Nothing here imports milepost: the process that runs vLLM has only what the setting under test loads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FIRST_TOKEN", "LAST_TOKEN", "Ask", "TokenArray", "Workload", "shareable_tokens"]

TokenArray: TypeAlias = npt.NDArray[np.int32]

# Below are special tokens; the models of these benchmarks know 512.
FIRST_TOKEN, LAST_TOKEN = 16, 511


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """One request: its own tokens, after the prompt and the answer of an earlier one if it follows one."""

    tokens: TokenArray
    follows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Requests in order, and the server they are meant for.

    Args:
        name: What the command line calls it.
        asks: In order of arrival; a request follows an earlier one only.
        answer_tokens: Tokens that every request generates, no fewer.
        pool_tokens: What the pool would hold if all of its blocks were KV.
        shares_prefixes: Whether requests share more than a conversation shares with itself.
        block_tokens: Least block size, None for the model's own.
        prefix_match_unit: Tokens that a hit is a multiple of, None for the block.
    """

    name: str
    asks: tuple[Ask, ...]
    answer_tokens: int
    pool_tokens: int
    shares_prefixes: bool
    block_tokens: int | None = None
    prefix_match_unit: int | None = None

    def __post_init__(self) -> None:
        for index, ask in enumerate(self.asks):
            if ask.follows is not None and not 0 <= ask.follows < index:
                raise ValueError(f"request {index} follows {ask.follows}; it can follow an earlier one only")

    def prompt(
        self, index: int, *, prompts: Mapping[int, TokenArray], answers: Mapping[int, Sequence[int]]
    ) -> TokenArray:
        """Return the whole prompt of request ``index``, given those before it and their answers."""
        ask = self.asks[index]
        if ask.follows is None:
            return ask.tokens
        answer = np.asarray(answers[ask.follows], dtype=np.int32)
        return np.concatenate([prompts[ask.follows], answer, ask.tokens])


def shareable_tokens(prompts: Sequence[TokenArray], answers: Sequence[Sequence[int]]) -> list[int]:
    """Return how much of each prompt earlier requests have computed: what an unlimited cache would reuse.

    The last token of an answer was sampled but never computed, and the last token of a prompt is always
    computed anew, for somebody has to sample from it. O(requests squared times length).

    >>> shareable_tokens([np.array([1, 2, 3]), np.array([1, 2, 3, 9, 8, 7])], [[9, 8], [5]])
    [0, 4]
    """
    from milepost.tokens import common_prefix_length

    shareable = []
    computed: list[TokenArray] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        longest = max((common_prefix_length(prompt, before) for before in computed), default=0)
        shareable.append(min(longest, len(prompt) - 1))
        computed.append(np.concatenate([prompt, np.asarray(answer[:-1], dtype=np.int32)]))
    return shareable
