"""Sessions take turns, in an order that repeats."""

from collections import Counter

from milepost.demo.documents import Document, DocumentQuestion
from milepost.demo.workload import chat_prompt, interleave, text_prompt

DOCUMENTS = [
    Document(name, f"Text of {name}.", tuple(DocumentQuestion(f"{name}{n}?") for n in range(4)))
    for name in "abc"
]


def encode(document: Document, question: DocumentQuestion) -> list[int]:
    return list(text_prompt(document, question).encode())


def test_every_question_is_asked_once_in_its_documents_order():
    asks = interleave(DOCUMENTS, encode, questions=3)
    assert Counter(ask.document for ask in asks) == {0: 3, 1: 3, 2: 3}
    for index, document in enumerate(DOCUMENTS):
        assert [ask.question for ask in asks if ask.document == index] == list(document.questions[:3])


def test_sessions_take_turns_and_the_order_repeats():
    asks = interleave(DOCUMENTS, encode, questions=4)
    assert all({a.document for a in asks[turn : turn + 3]} == {0, 1, 2} for turn in range(0, 12, 3))
    again = interleave(DOCUMENTS, encode, questions=4)
    assert [ask.question for ask in again] == [ask.question for ask in asks]


def test_a_document_with_fewer_questions_drops_out():
    short = Document("d", "Text.", (DocumentQuestion("only?"),))
    asks = interleave([*DOCUMENTS, short], encode, questions=9)
    assert len(asks) == 13


def test_the_document_comes_first_and_the_question_last():
    (ask,) = interleave(DOCUMENTS[:1], encode, questions=1)
    first = DOCUMENTS[0].questions[0]
    assert bytes(ask.tokens.tolist()).decode() == text_prompt(DOCUMENTS[0], first)
    assert text_prompt(DOCUMENTS[0], first) == "Text of a.\n\nQuestion: a0?\nAnswer:"
    assert chat_prompt(DOCUMENTS[0], first) == [{"role": "user", "content": "Text of a.\n\na0?"}]
