"""The demo's own documents: sources that the embedded model has never seen, and questions with answers."""

from milepost.demo.library_documents import library_documents
from milepost.embedded.library_text import is_held_out


def test_each_document_is_held_out_and_long_and_asked_different_things_with_known_answers():
    documents = library_documents(max_documents=6, questions=5)
    assert len({document.title for document in documents}) == 6
    for document in documents:
        assert is_held_out(f"{document.title}.py")
        assert 17_000 <= len(document.text) <= 21_000
        assert len({question.text for question in document.questions}) == 5
        assert all(question.expected for question in document.questions)


def test_they_are_the_same_every_time():
    assert library_documents(max_documents=2, questions=9) == library_documents(max_documents=2, questions=9)
