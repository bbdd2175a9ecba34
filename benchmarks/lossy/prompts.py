"""Prompts that share a prefix: questions about held-out text, and random tokens for random models."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from milepost.demo.documents import Document, DocumentQuestion
from milepost.demo.workload import chat_prompt
from milepost.embedded.library_text import library_sources
from milepost.embedded.questions import annotate, ask_about
from milepost.tokens import TokenArray, common_prefix_length

__all__ = ["QUESTIONS", "SharedPrompts", "held_out_documents", "question_prompts", "random_prompts"]

Encode = Callable[[list[Mapping[str, str]]], TokenArray]

QUESTIONS = 4
_LEAST_CHARACTERS, _MOST_CHARACTERS = 1_500, 6_000
_NUM_VALUES, _NUM_CHANGES = 6, 12
# What the embedded model answers mostly rightly.
_KINDS = ("value", "latest")
_RANDOM_PREFIX_GRIDS = (2, 12)
_RANDOM_SUFFIX_TOKENS = 24


@dataclass(frozen=True, slots=True)
class SharedPrompts:
    """Prompts that begin alike.

    Attributes:
        prefix: What all begin with, down to a position that a state may lie at.
        suffixes: What each goes on with.
    """

    prefix: torch.Tensor
    suffixes: tuple[torch.Tensor, ...]


def held_out_documents(*, seed: int) -> Iterator[Document]:
    """Yield stretches of the standard library's held-out sources, with notes between their lines and
    questions about these, without end.
    """
    rng = random.Random(seed)
    sources = [each.text for each in library_sources(held_out=True) if len(each.text) >= _MOST_CHARACTERS]
    while True:
        text = rng.choice(sources)
        num_characters = rng.randint(_LEAST_CHARACTERS, _MOST_CHARACTERS)
        begin = rng.randrange(len(text) - num_characters + 1)
        lines = text[begin : begin + num_characters].split("\n")[1:-1]
        noted = annotate("\n".join(lines), rng=rng, num_values=_NUM_VALUES, num_changes=_NUM_CHANGES)
        asked = (
            DocumentQuestion(question.text, question.expected)
            for question, _ in zip(ask_about(noted, rng=rng, kinds=_KINDS), range(QUESTIONS), strict=False)
        )
        yield Document("held out", noted.text, tuple(asked))


def question_prompts(
    documents: Iterator[Document], encode: Encode, *, count: int, grid: int
) -> Iterator[SharedPrompts]:
    """Yield ``count`` questions about ``documents`` as chat prompts; a prefix is a multiple of ``grid``."""
    while count > 0:
        document = next(documents)
        prompts = [encode(chat_prompt(document, question)) for question in document.questions[:count]]
        count -= len(prompts)
        yield _shared(prompts, _end_of_document(document, encode), grid)


def random_prompts(*, count: int, grid: int, vocabulary_size: int, seed: int) -> Iterator[SharedPrompts]:
    """Yield ``count`` prompts of random tokens, ``QUESTIONS`` of which share a prefix of a few ``grid``."""
    rng = np.random.default_rng(seed)
    while count > 0:
        prefix = rng.integers(3, vocabulary_size, grid * int(rng.integers(*_RANDOM_PREFIX_GRIDS)))
        suffixes = [
            rng.integers(3, vocabulary_size, int(rng.integers(1, _RANDOM_SUFFIX_TOKENS)))
            for _ in range(min(count, QUESTIONS))
        ]
        count -= len(suffixes)
        yield SharedPrompts(torch.from_numpy(prefix), tuple(map(torch.from_numpy, suffixes)))


def _end_of_document(document: Document, encode: Encode) -> int:
    """Return how many tokens two questions that have nothing in common share."""
    one, other = (encode(chat_prompt(document, DocumentQuestion(each))) for each in ("What?", "How?"))
    return common_prefix_length(one, other)


def _shared(prompts: Sequence[TokenArray], end: int, grid: int) -> SharedPrompts:
    cut = end // grid * grid
    whole = [torch.from_numpy(prompt.astype(np.int64)) for prompt in prompts]
    return SharedPrompts(whole[0][:cut], tuple(prompt[cut:] for prompt in whole))
