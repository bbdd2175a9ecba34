"""Prompts of a tiny model, computed once, and decoded in rows that come and go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from resuming import prompt, tiny_driver

from milepost.engines.transformers.driver import LiveCache
from milepost.engines.transformers.rows import BatchedRows
from milepost.engines.transformers.snapshot import capture_state, slice_kv

# A prompt of a few tokens, one of two strides of columns, one that a window of 96 has begun to forget.
LENGTHS = (3, 70, 101)
NUM_STEPS = 4

# Families whose sequences are advanced one by one, and what is said of them.
ONE_BY_ONE = {
    "inkling": "counts distances in columns",
    "inkling2": "counts distances in columns",
    "inkling2_loop": "counts distances in columns",
    "qwen4_exp": "DynamicIndexedLayer",
    "glm5_next": "DynamicIndexedLayer",
}


@dataclass(frozen=True)
class Stay:
    """A prompt that joins at one step and has left by another."""

    prompt: int
    start: int = 0
    end: int = NUM_STEPS


def answer(index: int) -> torch.Tensor:
    """Return the tokens that follow prompt ``index``, whatever the model says."""
    return prompt(NUM_STEPS, seed=100 + index)


@cache
def _computed(family: str, dtype: torch.dtype, index: int):
    driver, length = tiny_driver(family, dtype), LENGTHS[index]
    live = driver.start(num_tokens=length)
    driver.advance(live, prompt(length, seed=index))
    return capture_state(live.cache, length), slice_kv(live.cache, 0, length)


def computed(family: str, dtype: torch.dtype, index: int) -> LiveCache:
    """Return a live cache behind prompt ``index``."""
    snapshot, segment = _computed(family, dtype, index)
    driver, length = tiny_driver(family, dtype), LENGTHS[index]
    return driver.restore(snapshot, [segment], position=length, num_tokens=length)


@cache
def alone(family: str, dtype: torch.dtype, index: int) -> torch.Tensor:
    """Return the logits of each step of prompt ``index`` by itself."""
    driver, live = tiny_driver(family, dtype), computed(family, dtype, index)
    return torch.stack([driver.advance(live, token[None]) for token in answer(index)])


def decode(
    rows: BatchedRows, family: str, dtype: torch.dtype, stays: Sequence[Stay]
) -> Mapping[int, torch.Tensor]:
    """Return the logits of the steps of each prompt; those that have left keep their caches."""
    lives = {stay.prompt: computed(family, dtype, stay.prompt) for stay in stays}
    logits: dict[int, list[torch.Tensor]] = {stay.prompt: [] for stay in stays}
    for step in range(max(stay.end for stay in stays)):
        for stay in stays:
            if stay.end == step:
                rows.leave(lives[stay.prompt], keeps=False)
        present = [stay for stay in stays if stay.start <= step < stay.end]
        tokens = [int(answer(stay.prompt)[step - stay.start]) for stay in present]
        found = rows.advance([lives[stay.prompt] for stay in present], tokens)
        for stay, row in zip(present, found, strict=True):
            logits[stay.prompt].append(row.clone())
    return {index: torch.stack(steps) for index, steps in logits.items()}
