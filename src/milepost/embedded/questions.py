"""What the embedded model can be asked about a document, and what the right answer is.

Four kinds. ``line``: quote the line after this one. ``definition``: quote the ``def`` or ``class`` of this
name. ``value``: what a made-up note says, one of dozens between the lines of the text. These three are there
to be found by whoever still has the text. ``latest``: what a note said *last* about a thing that changes all
the time, which asks for a memory of the order rather than for a place in the text.

An answer repeats what was asked and goes on as the text does, so finding the place is all there is to it.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["KINDS", "AnnotatedText", "Question", "annotate", "ask_about"]

_THINGS = ("lamp", "door", "cat", "train", "boat", "flag", "wall", "book")
_COLOURS = ("red", "blue", "green", "white", "black", "yellow", "pink", "brown")
_CONSONANTS, _VOWELS = "bdfghklmnprstvz", "aeiou"

_DEFINITION = re.compile(r"(?:async def|def|class) (\w+)\b.*:$")
_NOTE = re.compile(r"The value of \w+ is \d+\.$|Now the \w+ is \w+\.$")
_LEAST_LINE, _MOST_LINE, _MOST_DEFINITION = 12, 50, 60
_LEAST_NEXT_LINE = 3


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the whole answer, and the part of it that must be there."""

    kind: str
    text: str
    answer: str
    expected: str


@dataclass(frozen=True, slots=True)
class AnnotatedText:
    """A text with notes between its lines.

    Attributes:
        text: The text with the notes.
        values: What each made-up name is worth.
        latest: What each thing was last said to be.
    """

    text: str
    values: dict[str, str]
    latest: dict[str, str]


def annotate(text: str, *, rng: random.Random, num_values: int, num_changes: int) -> AnnotatedText:
    """Insert notes at random places between the lines of a text."""
    values: dict[str, str] = {}
    while len(values) < num_values:
        values[_made_up_name(rng)] = str(rng.randrange(100, 1000))
    changes = [(rng.choice(_THINGS), rng.choice(_COLOURS)) for _ in range(num_changes)]
    value_notes = (_value_note(*named) for named in values.items())
    change_notes = (_change_note(*change) for change in changes)
    notes = [value_notes] * num_values + [change_notes] * num_changes
    rng.shuffle(notes)
    lines = text.split("\n")
    places = sorted((rng.randrange(len(lines) + 1) for _ in notes), reverse=True)
    # From the last place to the first, so that the places before stay what they are.
    for place, note in zip(places, reversed([next(kind) for kind in notes]), strict=True):
        lines.insert(place, note)
    return AnnotatedText("\n".join(lines), values, latest=dict(changes))


def ask_about(
    annotated: AnnotatedText, *, rng: random.Random, kinds: Sequence[str] | None = None
) -> Iterator[Question]:
    """Yield different questions, the kinds in turn and each in random order, until none is left.

    Args:
        annotated: What they are about.
        rng: Decides the order.
        kinds: Of ``KINDS``; all of them unless given.
    """
    left = {kind: _QUESTIONS[kind](annotated) for kind in kinds or KINDS}
    for questions in left.values():
        rng.shuffle(questions)
    while any(left.values()):
        for kind in rng.sample(sorted(left), len(left)):
            if left[kind]:
                yield left[kind].pop()


def _made_up_name(rng: random.Random) -> str:
    return "".join(
        rng.choice(letters) for letters in (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
    )


def _value_note(name: str, value: str) -> str:
    return f"The value of {name} is {value}."


def _change_note(thing: str, colour: str) -> str:
    return f"Now the {thing} is {colour}."


def _value_questions(annotated: AnnotatedText) -> list[Question]:
    return [
        Question("value", f"What is the value of {name}?", _value_note(name, value), f" {value}.")
        for name, value in annotated.values.items()
    ]


def _latest_questions(annotated: AnnotatedText) -> list[Question]:
    return [
        Question("latest", f"What is the {thing} now?", _change_note(thing, colour), f" {colour}.")
        for thing, colour in annotated.latest.items()
    ]


def _line_questions(annotated: AnnotatedText) -> list[Question]:
    lines = annotated.text.split("\n")
    times = Counter(line.strip() for line in lines)
    return [
        Question(
            "line", f"Which line follows this one?\n{line.strip()}", f"{line.strip()}\n{after}", f"\n{after}"
        )
        for line, after in zip(lines, (line.rstrip() for line in lines[1:]), strict=False)
        if not _NOTE.match(line)
        and _LEAST_LINE <= len(line.strip()) <= _MOST_LINE
        and times[line.strip()] == 1
        and len(after.strip()) >= _LEAST_NEXT_LINE
        and len(after) <= _MOST_LINE
    ]


def _definition_questions(annotated: AnnotatedText) -> list[Question]:
    found = [
        (match[1], match[0])
        for match in map(_DEFINITION.match, (line.strip() for line in annotated.text.split("\n")))
        if match and len(match[0]) <= _MOST_DEFINITION
    ]
    times = Counter(name for name, _ in found)
    return [
        Question("definition", f"How is {name} defined?", definition, definition)
        for name, definition in found
        if times[name] == 1
    ]


_QUESTIONS: dict[str, Callable[[AnnotatedText], list[Question]]] = {
    "line": _line_questions,
    "definition": _definition_questions,
    "value": _value_questions,
    "latest": _latest_questions,
}
KINDS = tuple(_QUESTIONS)
