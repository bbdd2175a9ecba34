"""A training sequence is what a conversation with the model looks like, and its answers are marked."""

import numpy as np
import pytest
from training.curve import MadeUpText
from training.sequences import ANSWER, QUESTION, TEXT, SequenceMaker
from transformers import AutoTokenizer

from milepost.embedded import embedded_folder


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_folder())


def test_a_sequence_is_a_document_and_turns_as_the_chat_template_writes_them(tokenizer):
    batch = SequenceMaker(MadeUpText(), tokenizer, seed=1).batch(3, 900, plain_share=0.0)
    assert batch.tokens.shape == batch.parts.shape == batch.answers.shape == (3, 900)
    for row in batch.tokens:
        text = tokenizer.decode(row)
        opening, *turns = (
            text.split("<|user|>") if text.startswith("<|system|>") else ["", *text.split("<|user|>")[1:]]
        )
        messages = (
            [{"role": "system", "content": opening[len("<|system|>") : -len("<|end|>")]}] if opening else []
        )
        for turn in turns[:-1]:
            asked, answered = turn.removesuffix("<|end|>").split("<|end|><|assistant|>")
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        assert len(messages) >= 2
        assert text.startswith(tokenizer.apply_chat_template(messages, tokenize=False))


def test_answers_are_marked_with_their_kind_up_to_their_end(tokenizer):
    batch = SequenceMaker(MadeUpText(), tokenizer, seed=2).batch(2, 400, plain_share=0.0)
    for tokens, parts, answers in zip(batch.tokens, batch.parts, batch.answers, strict=True):
        assert np.array_equal(answers > 0, parts >= ANSWER)
        assert set(parts[answers == 0].tolist()) == {QUESTION, TEXT}
        first = tokenizer.decode(tokens[answers == 1])
        assert first.endswith("<|end|>")
        assert first.count("<|") == 1


def test_plain_text_is_all_text_and_the_same_seed_makes_the_same_sequences(tokenizer):
    one, other = (
        SequenceMaker(MadeUpText(), tokenizer, seed=3).batch(2, 100, plain_share=1.0) for _ in range(2)
    )
    assert np.array_equal(one.tokens, other.tokens)
    assert set(one.parts.flatten().tolist()) == {TEXT}


def test_an_answer_is_right_when_all_of_it_is(tokenizer):
    batch = SequenceMaker(MadeUpText(), tokenizer, seed=4).batch(1, 400, plain_share=0.0)
    hits = np.ones(399, bool)
    assert all(is_right for _, is_right in batch.judged(0, hits))
    hits[np.flatnonzero(batch.answers[0, 1:] == 1)[-1]] = False
    assert [is_right for _, is_right in batch.judged(0, hits)].count(False) == 1
