"""Who asks what, when: sessions about one document each, interleaved as a busy server sees them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milepost.demo.documents import Document
from milepost.tokens import TokenArray, TokenLike, as_tokens

__all__ = ["Ask", "interleave", "prompt_text"]

_SEED = 7


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: which document, which question, and the whole prompt as tokens."""

    document: int
    question: str
    tokens: TokenArray


def prompt_text(document: Document, question: str) -> str:
    """Return the prompt: the document first, the question last, as document question answering does."""
    return f"{document.text}\n\nQuestion: {question}\nAnswer:"


def interleave(
    documents: Sequence[Document], encode: Callable[[str], TokenLike], *, questions: int
) -> list[Ask]:
    """Return every question about every document; sessions take turns in a shuffled, repeatable order.

    Args:
        documents: What is asked about.
        encode: Text to token ids.
        questions: Most questions asked about one document.
    """
    rng = random.Random(_SEED)
    pending = [list(document.questions[:questions]) for document in documents]
    asks: list[Ask] = []
    while any(pending):
        open_sessions = [index for index, left in enumerate(pending) if left]
        rng.shuffle(open_sessions)
        for index in open_sessions:
            question = pending[index].pop(0)
            tokens = as_tokens(encode(prompt_text(documents[index], question)))
            asks.append(Ask(document=index, question=question, tokens=tokens))
    return asks
