"""What an answer is made of."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Piece", "Reasoning", "Text", "ToolCall", "joined"]


@dataclass(frozen=True, slots=True)
class Text:
    """Some of what the client's user reads; it goes on in the next piece of its kind."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Some of what the model thinks before it answers; it goes on as text does."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, whole.

    Attributes:
        name: Of the tool; whether there is one of that name is the client's to know.
        arguments: A JSON object as the model wrote it, where it wrote JSON.
        id: As the model calls it; None where it names no calls.
    """

    name: str
    arguments: str
    id: str | None = None


Piece = Text | Reasoning | ToolCall


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Return pieces with those that go on put together.

    >>> joined([Text("a"), Text("b"), Reasoning("c")])
    [Text(text='ab'), Reasoning(text='c')]
    """
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if isinstance(last, Text) and isinstance(piece, Text):
            found[-1] = Text(last.text + piece.text)
        elif isinstance(last, Reasoning) and isinstance(piece, Reasoning):
            found[-1] = Reasoning(last.text + piece.text)
        else:
            found.append(piece)
    return found
