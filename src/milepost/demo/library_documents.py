"""Documents with known answers: sources of the standard library that the embedded model has never seen."""

import random
import zlib

from milepost.demo.documents import Document, DocumentQuestion
from milepost.embedded.library_text import LibraryText, library_sources
from milepost.embedded.questions import annotate, ask_about

__all__ = ["library_documents"]

# Six to seven thousand tokens: long enough that a state pays, short enough for a demo on two cores.
_CHARACTERS = 17_500
_NUM_VALUES, _NUM_CHANGES = 6, 18
# What the embedded model answers mostly rightly at this length; its card has the other kinds.
_KINDS = ("value", "latest")


def library_documents(*, max_documents: int, questions: int) -> list[Document]:
    """Return the beginnings of modules, with made-up notes between their lines, and questions about both.

    The same under one version of Python, every time.
    """
    long_enough = [source for source in library_sources(held_out=True) if len(source.text) >= _CHARACTERS]
    return [_document(source, questions) for source in long_enough[:max_documents]]


def _document(source: LibraryText, questions: int) -> Document:
    rng = random.Random(zlib.crc32(source.name.encode()))
    text = source.text[: source.text.rindex("\n", 0, _CHARACTERS)]
    annotated = annotate(text, rng=rng, num_values=_NUM_VALUES, num_changes=_NUM_CHANGES)
    asked = (
        DocumentQuestion(question.text, question.expected)
        for question, _ in zip(ask_about(annotated, rng=rng, kinds=_KINDS), range(questions), strict=False)
    )
    return Document(source.name.removesuffix(".py"), annotated.text, tuple(asked))
