"""What clients of running servers do, as text: questions about documents, and conversations."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Session", "draw_sessions"]

_WORDS = ("time", "tide", "river", "stone", "amber", "valley", "winter", "orchard", "lantern", "meadow")
_QUESTIONS, _TURNS = 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Prompts, one after the other; each goes on from the text so far where ``goes_on``."""

    prompts: Sequence[str]
    goes_on: bool


def draw_sessions(num_requests: int, *, seed: int = 1) -> list[Session]:
    """Return sessions of about ``num_requests`` prompts in all, half about documents, in a random order."""
    drawn = random.Random(seed)
    num_each = max(1, round(num_requests / (_QUESTIONS + _TURNS)))
    sessions = [each for number in range(num_each) for each in _questions(drawn, number)]
    sessions += [_conversation(drawn, number) for number in range(num_each)]
    drawn.shuffle(sessions)
    return sessions


def _questions(drawn: random.Random, number: int) -> Iterator[Session]:
    document = f"Document {number}: {_text(drawn, 500)}"
    for at in range(_QUESTIONS):
        # Every second one is about the first half alone.
        read = document[: len(document) // (1 + at % 2)]
        yield Session(prompts=[f"{read} {_text(drawn, 30)}"], goes_on=False)


def _conversation(drawn: random.Random, number: int) -> Session:
    said = [f"Conversation {number}.{turn}: {_text(drawn, 200)} " for turn in range(_TURNS)]
    return Session(prompts=said, goes_on=True)


def _text(drawn: random.Random, num_words: int) -> str:
    return " ".join(drawn.choice(_WORDS) for _ in range(num_words))
