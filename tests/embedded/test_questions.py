"""Questions about a document, and answers that are its own words."""

import random
import re

import pytest

from milepost.embedded.questions import KINDS, annotate, ask_about

TEXT = '''class Shelf:
    """Holds books."""

    def take(self, title):
        found = self.books.pop(title)
        return found

    def put(self, title, book):
        self.books[title] = book
        return found
'''


def asked(annotated, *, seed=0):
    return list(ask_about(annotated, rng=random.Random(seed)))


def test_notes_stand_between_the_lines_and_the_text_stays_as_it_was():
    annotated = annotate(TEXT, rng=random.Random(1), num_values=4, num_changes=9)
    notes = [line for line in annotated.text.split("\n") if re.match(r"The value of|Now the", line)]
    assert len(notes) == 13
    assert "\n".join(line for line in annotated.text.split("\n") if line not in notes) == TEXT
    assert len(annotated.values) == 4


def test_what_a_thing_is_now_is_what_was_said_last():
    annotated = annotate(TEXT, rng=random.Random(2), num_values=0, num_changes=60)
    for thing, colour in annotated.latest.items():
        assert re.findall(rf"^Now the {thing} is (\w+)\.$", annotated.text, flags=re.M)[-1] == colour
    changed = [thing for thing in annotated.latest if annotated.text.count(f"Now the {thing} is") > 1]
    assert changed, "something changed, or there is nothing to remember"


@pytest.mark.parametrize("seed", range(3))
def test_every_answer_holds_what_is_expected_and_the_text_holds_it_too(seed):
    annotated = annotate(TEXT, rng=random.Random(seed), num_values=3, num_changes=5)
    questions = asked(annotated, seed=seed)
    assert {question.kind for question in questions} == set(KINDS)
    for question in questions:
        assert question.expected in question.answer
        assert question.answer in re.sub(r"^ +", "", annotated.text, flags=re.M) or question.kind == "line"
        assert question.expected in annotated.text


def test_the_line_after_is_quoted_with_its_indentation_and_a_line_that_stands_twice_is_not_asked_about():
    lines = {
        each.text: each for each in asked(annotate(TEXT, rng=random.Random(0), num_values=0, num_changes=0))
    }
    question = lines["Which line follows this one?\nfound = self.books.pop(title)"]
    assert question.answer == "found = self.books.pop(title)\n        return found"
    assert question.expected == "\n        return found"
    assert "Which line follows this one?\nreturn found" not in lines


def test_a_definition_is_quoted_whole():
    annotated = annotate(TEXT, rng=random.Random(0), num_values=0, num_changes=0)
    answers = {each.text: each.answer for each in asked(annotated) if each.kind == "definition"}
    assert answers == {
        "How is Shelf defined?": "class Shelf:",
        "How is take defined?": "def take(self, title):",
        "How is put defined?": "def put(self, title, book):",
    }


def test_no_question_is_asked_twice_and_the_order_repeats():
    annotated = annotate(TEXT, rng=random.Random(3), num_values=5, num_changes=5)
    questions = asked(annotated)
    assert len({question.text for question in questions}) == len(questions)
    assert asked(annotated) == questions
    assert asked(annotated, seed=1) != questions


def test_a_text_without_anything_to_ask_is_asked_nothing():
    assert asked(annotate("", rng=random.Random(0), num_values=0, num_changes=0)) == []
