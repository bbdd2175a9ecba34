"""Prompts in the order in which people send them, as token ids."""

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["TRAFFIC", "Prompt", "chat", "documents", "edited_turns"]

Prompt = list[int]
# Answers a prompt with tokens.
Answer = Callable[[Prompt], list[int]]
# Past the bytes and special tokens of the models here.
_FIRST, _END = 300, 4_000


def _tokens(random: np.random.Generator, number: int) -> Prompt:
    found: Prompt = random.integers(_FIRST, _END, number).tolist()
    return found


def documents(answer: Answer, *, seed: int = 0) -> Iterator[None]:
    """Two documents of 1,500 tokens, and nine questions about each, the documents taking turns."""
    random = np.random.default_rng(seed)
    shared = [_tokens(random, 1_500) for _ in range(2)]
    for turn in range(18):
        answer(shared[turn % 2] + _tokens(random, 30))
        yield


def edited_turns(answer: Answer, *, seed: int = 0) -> Iterator[None]:
    """A chat in which each of five turns is asked, answered again, and then asked in other words."""
    random = np.random.default_rng(seed)
    so_far = _tokens(random, 400)
    for _ in range(5):
        question = _tokens(random, 40)
        answer(so_far + question)
        yield
        answer(so_far + question)
        yield
        edited = so_far + question[:20] + _tokens(random, 20)
        so_far = edited + answer(edited) + _tokens(random, 4)
        yield


def chat(answer: Answer, *, seed: int = 0) -> Iterator[None]:
    """Ten turns, each prompt the last one with its answer and 40 tokens more."""
    random = np.random.default_rng(seed)
    prompt = _tokens(random, 200)
    for _ in range(10):
        prompt = prompt + answer(prompt) + _tokens(random, 40)
        yield


TRAFFIC = {
    "document questions": documents,
    "regenerated and edited turns": edited_turns,
    "ten-turn chat": chat,
}
