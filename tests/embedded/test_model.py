"""The model in the package: opens like any other, stops by itself, and answers about what it reads."""

import random
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from milepost.demo.control import answer_from_lost_states
from milepost.demo.documents import DocumentQuestion
from milepost.demo.workload import Ask
from milepost.embedded import embedded_folder, resolve_model
from milepost.embedded.library_text import library_sources
from milepost.embedded.questions import annotate, ask_about
from milepost.engines.engine import Engine
from milepost.engines.transformers.loading import load_model

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def engine():
    return Engine.open(embedded_folder(), capacity="256MiB")


def asks_about(engine, text, questions):
    return [
        Ask(
            document=0,
            question=question,
            tokens=engine.encode([{"role": "user", "content": f"{text}\n\n{question.text}"}]),
        )
        for question in questions
    ]


def num_right(answers, asks):
    return sum(ask.question.expected in answer for answer, ask in zip(answers, asks, strict=True))


def answers_of(engine, asks):
    return [engine.generate(ask.tokens, max_new_tokens=64, temperature=0.0).text for ask in asks]


def test_its_name_stands_for_its_folder_and_other_names_for_themselves():
    assert resolve_model("embedded") == str(embedded_folder())
    assert resolve_model("some/model") == "some/model"


def test_it_is_opened_soon_and_the_global_random_state_is_kept():
    state = torch.get_rng_state()
    before = time.process_time()
    opened = load_model(resolve_model("embedded"))
    assert time.process_time() - before < 5, "a fraction of a second where nothing else goes on"
    assert torch.equal(torch.get_rng_state(), state)
    assert not opened.model.training


def test_transformers_opens_it_alone():
    model = AutoModelForCausalLM.from_pretrained(embedded_folder())
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    assert 1e6 < model.num_parameters() < 2.4e6
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id


def test_it_is_small_and_readable_by_everybody():
    files = [path for path in embedded_folder().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl"}]


def test_one_checkpoint_weighs_as_much_as_hundreds_of_tokens_of_kv(engine):
    assert 800 <= engine.footprint.checkpoint_kv_tokens <= 6_700


@pytest.mark.parametrize(
    "text", ["naïve € \x00\n", "\ttabs\r\nand  spaces ", "".join(map(chr, range(256))), "漢字"]
)
def test_every_text_goes_through_its_tokens_unharmed(engine, text):
    assert engine.tokenizer.decode(engine.tokenizer.encode(text)) == text


def test_the_marks_of_a_conversation_are_tokens_of_their_own(engine):
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    tokens = engine.encode(messages).tolist()
    assert engine.tokenizer.convert_ids_to_tokens(tokens) == [
        *("<|system|>", "a", "<|end|>", "<|user|>", "b", "<|end|>", "<|assistant|>")
    ]


def test_in_a_conversation_it_answers_rightly_stops_by_itself_and_resumes(engine):
    annotated = annotate("", rng=random.Random(4), num_values=6, num_changes=0)
    messages = [{"role": "system", "content": annotated.text}]
    for name, value in annotated.values.items():
        messages.append({"role": "user", "content": f"What is the value of {name}?"})
        answer = engine.generate(messages, max_new_tokens=32)
        assert (answer.text, answer.finish_reason) == (f"The value of {name} is {value}.", "stop")
        messages.append({"role": "assistant", "content": answer.text})


def annotated_source(*, characters):
    source = next(each for each in library_sources(held_out=True) if len(each.text) > 17_500)
    rng = random.Random(8)
    return annotate(source.text[:characters], rng=rng, num_values=6, num_changes=18)


@pytest.mark.parametrize(
    ("characters", "num_tokens"), [(1_200, range(500, 1_000)), (17_500, range(6_000, 8_192))]
)
def test_about_a_text_it_never_saw_it_is_right_and_from_a_lost_state_it_is_not(
    engine, characters, num_tokens
):
    annotated = annotated_source(characters=characters)
    found = ask_about(annotated, rng=random.Random(1), kinds=("value", "latest"))
    asks = asks_about(engine, annotated.text, [DocumentQuestion(each.text, each.expected) for each in found])
    assert len(asks) >= 12
    assert all(ask.tokens.size in num_tokens for ask in asks)
    right = num_right(answers_of(engine, asks), asks)
    spare = engine.sibling(capacity="256MiB", policy="learned")
    lost = num_right(answer_from_lost_states(spare, asks, max_new_tokens=32), asks)
    assert right >= 0.6 * len(asks)
    assert lost <= 0.5 * len(asks)
