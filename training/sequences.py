"""What a training sequence is: a document with notes, then questions and answers about it; or plain text."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from milepost.embedded.questions import KINDS, Question, annotate, ask_about
from training.vocabulary import END, ROLE_MARKS

__all__ = ["ANSWER", "QUESTION", "TEXT", "SequenceMaker", "TrainingBatch"]

# What a token is part of. An answer's part is ANSWER and the number of its kind in KINDS.
QUESTION, TEXT, ANSWER = 0, 1, 2

PLAIN_SHARE = 0.15
_SYSTEM_SHARE = 0.3
_CHARACTERS_PER_TOKEN = 2.6
# However long the text is: what is kept in mind has to be found, not to be squeezed in.
_NUM_NOTES = (8, 40)


class Text(Protocol):
    """Where documents come from."""

    def window(self, num_characters: int, *, rng: random.Random) -> str:
        """Return at most so many characters that stand together."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Sequences of one length; every array has shape ``[num_sequences, length]``.

    Attributes:
        tokens: Token ids.
        parts: What each token is part of.
        answers: Which answer of its sequence it belongs to, from 1; 0 elsewhere.
        is_found: Whether it stands for what had to be found in the document: the value, the colour, the line.
    """

    tokens: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int8]
    answers: npt.NDArray[np.int32]
    is_found: npt.NDArray[np.bool_]

    @property
    def document_ends(self) -> npt.NDArray[np.int64]:
        """Where each sequence's document ends, and its questions begin; shape ``[num_sequences]``."""
        return np.array([int(np.flatnonzero(row == TEXT)[-1]) + 1 for row in self.parts])

    def judged(self, row: int, hits: npt.NDArray[np.bool_]) -> Iterator[tuple[str, bool]]:
        """Yield the kind of each whole answer of a sequence, and whether all of its tokens were hit.

        Args:
            row: Which sequence.
            hits: Whether each of its tokens but the first was; shape ``[length - 1]``.
        """
        parts, answers = self.parts[row, 1:], self.answers[row, 1:]
        # The last answer may have been cut off.
        for number in range(1, int(answers.max())):
            here = answers == number
            yield KINDS[int(parts[here][0]) - ANSWER], bool(hits[here].all())


@dataclass(slots=True)
class _Sequence:
    tokens: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    is_found: list[bool] = field(default_factory=list)

    def add(
        self, tokens: list[int], part: int, *, answer: int = 0, is_found: Sequence[bool] | None = None
    ) -> None:
        self.tokens += tokens
        self.parts += [part] * len(tokens)
        self.answers += [answer] * len(tokens)
        self.is_found += is_found or [False] * len(tokens)


class SequenceMaker:
    """Makes sequences out of a corpus; the same seed makes the same ones."""

    def __init__(self, corpus: Text, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> None:
        self._corpus, self._tokenizer = corpus, tokenizer
        self._rng = random.Random(seed)
        self._end: int = tokenizer.convert_tokens_to_ids(END)
        self._marks = {role: tokenizer.convert_tokens_to_ids(mark) for role, mark in ROLE_MARKS.items()}

    def batch(self, num_sequences: int, length: int, *, plain_share: float = PLAIN_SHARE) -> TrainingBatch:
        """Return so many sequences of exactly this length, this share of them plain text."""
        made = [
            self._plain(length) if self._rng.random() < plain_share else self._conversation(length)
            for _ in range(num_sequences)
        ]
        return TrainingBatch(
            np.array([each.tokens[:length] for each in made], np.int64),
            np.array([each.parts[:length] for each in made], np.int8),
            np.array([each.answers[:length] for each in made], np.int32),
            np.array([each.is_found[:length] for each in made], np.bool_),
        )

    def _plain(self, length: int) -> _Sequence:
        made = _Sequence()
        while len(made.tokens) < length:
            text = self._corpus.window(int(length * _CHARACTERS_PER_TOKEN), rng=self._rng)
            made.add([*self._encode(text), self._end], TEXT)
        return made

    def _conversation(self, length: int) -> _Sequence:
        """Return a document that there are enough questions about to fill the length."""
        while True:
            made = self._questioned(self._document_tokens(length), length)
            # Some text has shorter tokens than most, and leaves no room for a question.
            if len(made.tokens) >= length and max(made.parts[:length]) >= ANSWER:
                return made

    def _document_tokens(self, length: int) -> int:
        # Long documents leave room for some forty questions, short ones for a handful.
        return int(max(length - 1_600, length * self._rng.uniform(0.35, 0.7)))

    def _questioned(self, document_tokens: int, length: int) -> _Sequence:
        rng = self._rng
        notes = min(document_tokens // rng.randrange(30, 120) + 2, rng.randrange(*_NUM_NOTES))
        num_values = rng.randrange(1, notes + 1)
        text = self._text(int(document_tokens * _CHARACTERS_PER_TOKEN))
        annotated = annotate(text, rng=rng, num_values=num_values, num_changes=notes - num_values)
        is_system = rng.random() < _SYSTEM_SHARE
        made = _Sequence()
        made.add([self._marks["system" if is_system else "user"]], QUESTION)
        made.add(self._encode(annotated.text), TEXT)
        opening = [self._end, self._marks["user"]] if is_system else self._encode("\n\n")
        for number, question in enumerate(ask_about(annotated, rng=rng), start=1):
            asked = [*opening, *self._encode(question.text), self._end, self._marks["assistant"]]
            made.add(asked, QUESTION)
            answer, is_found = self._answered(question)
            made.add(answer, ANSWER + KINDS.index(question.kind), answer=number, is_found=is_found)
            if len(made.tokens) >= length:
                break
            opening = [self._marks["user"]]
        return made

    def _answered(self, question: Question) -> tuple[list[int], list[bool]]:
        """Return the tokens of an answer and its end, and which of them stand for what had to be found."""
        encoded = self._tokenizer(question.answer, add_special_tokens=False, return_offsets_mapping=True)
        begins = question.answer.rindex(question.expected)
        is_found = [end > begins for _, end in encoded["offset_mapping"]]
        return [*encoded["input_ids"], self._end], [*is_found, False]

    def _text(self, num_characters: int) -> str:
        """Return text of about this length, of several windows where one is too short."""
        text = ""
        while len(text) < 0.6 * num_characters:
            text += self._corpus.window(num_characters - len(text), rng=self._rng) + "\n"
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids
