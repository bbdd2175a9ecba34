"""What clients ask: questions about documents, and chats; the same for the same seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from milepost.embedded.library_text import LibraryText, library_sources, library_topics

__all__ = ["Asked", "chats", "document_questions"]

Messages = list[dict[str, str]]

_USER_TURNS = (
    "Say more about that.",
    "And what does it not do?",
    "Give an example of it.",
    "Which part matters most?",
    "How would you test it?",
    "Put it in one sentence.",
    "What did you leave out?",
    "Who would need this?",
    "Is there another way?",
    "Thank you. Anything else?",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: a name that tells it from others, and its messages."""

    name: str
    messages: Sequence[dict[str, Any]]


def document_questions(*, num_documents: int, num_questions: int, characters: int) -> list[list[Asked]]:
    """Return the questions about each document, which has about as many ``characters``."""
    found = []
    for number, document in enumerate(_texts(num_documents)):
        text = (document.text * (characters // len(document.text) + 1))[:characters]
        words = random.Random(number).sample(sorted(set(text.split())), num_questions)
        found.append(
            [
                Asked(
                    f"document {number}, question {index}",
                    [{"role": "user", "content": f"{text}\n\nWhat does it say about {word}?"}],
                )
                for index, word in enumerate(words)
            ]
        )
    return found


def chats(*, num_chats: int, num_turns: int) -> list[list[str]]:
    """Return what the user of each chat says, turn by turn."""
    topics = [text.name.removeprefix("topics/") for text in _texts(num_chats)]
    return [
        [
            f"Tell me about {topic} in Python, please.",
            *random.Random(number).sample(_USER_TURNS, num_turns - 1),
        ]
        for number, topic in enumerate(topics)
    ]


def _texts(number: int) -> tuple[LibraryText, ...]:
    """Return topics of Python's documentation, and sources where there are too few."""
    topics = library_topics(held_out=False)
    return (topics if number <= len(topics) else topics + library_sources(held_out=False))[:number]
