"""What clients of running servers do, as text: questions about documents, and conversations."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["NUM_USERS", "Session", "draw_sessions", "order_of"]

#: Who ask at a time, each one session after the other.
NUM_USERS = 4

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


def order_of(sessions: Sequence[Session], drawn: random.Random) -> list[tuple[int, int]]:
    """Return an order in which ``NUM_USERS`` could ask all of it: the place of each session and the turn."""
    waiting = [(place, len(session.prompts)) for place, session in enumerate(sessions)]
    waiting.reverse()
    going_on: list[tuple[int, int, int]] = []
    order = []
    while waiting or going_on:
        while waiting and len(going_on) < NUM_USERS:
            place, num_turns = waiting.pop()
            going_on.append((place, 0, num_turns))
        place, turn, num_turns = going_on.pop(drawn.randrange(len(going_on)))
        order.append((place, turn))
        if turn + 1 < num_turns:
            going_on.append((place, turn + 1, num_turns))
    return order


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
