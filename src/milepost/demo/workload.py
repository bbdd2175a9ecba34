"""Who asks what, when: sessions about one document each, interleaved as a busy server sees them."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from milepost.demo.documents import Document, DocumentQuestion
from milepost.tokens import TokenArray, TokenLike, as_tokens

__all__ = ["Ask", "chat_prompt", "interleave", "text_prompt"]

_SEED = 7


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: which document, which question, and the whole prompt as tokens."""

    document: int
    question: DocumentQuestion
    tokens: TokenArray


def text_prompt(document: Document, question: DocumentQuestion) -> str:
    """Return the prompt for a model of plain text: the document first, the question last."""
    return f"{document.text}\n\nQuestion: {question.text}\nAnswer:"


def chat_prompt(document: Document, question: DocumentQuestion) -> list[Mapping[str, str]]:
    """Return the prompt for a chat model: one message, since not every template knows a system's."""
    return [{"role": "user", "content": f"{document.text}\n\n{question.text}"}]


def interleave(
    documents: Sequence[Document],
    encode: Callable[[Document, DocumentQuestion], TokenLike],
    *,
    questions: int,
) -> list[Ask]:
    """Return every question about every document; sessions take turns in a shuffled, repeatable order.

    Args:
        documents: What is asked about.
        encode: A document and a question to the prompt's token ids.
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
            tokens = as_tokens(encode(documents[index], question))
            asks.append(Ask(document=index, question=question, tokens=tokens))
    return asks
