"""Many answers a call, prompts in between, and what is left behind by those that end early or late."""

import numpy as np
import pytest
from fake_driver import FakeRows, expected_answer, fake_engine, tokens

from milepost.engines.cuts import Cuts


def prompts(count, length=40):
    return [tokens(length + 3 * number, seed=number) for number in range(count)]


def test_answers_advance_together_and_say_what_they_say_alone():
    engine = fake_engine(decode_rows=4)
    asked = prompts(4)
    answers = engine.generate_many(asked, max_new_tokens=6)
    assert [answer.tokens for answer in answers] == [expected_answer(each, 6) for each in asked]
    rows = engine._rows
    assert isinstance(rows, FakeRows)
    assert max(rows.calls) == 4
    assert len(rows.calls) < 4 * 5


def test_no_more_run_than_one_call_takes():
    engine = fake_engine(decode_rows=3, max_running=8)
    asked = prompts(7)
    answers = engine.generate_many(asked, max_new_tokens=5)
    assert [answer.tokens for answer in answers] == [expected_answer(each, 5) for each in asked]
    assert max(engine._rows.calls) == 3


def test_running_answers_get_a_token_between_any_two_pieces_of_a_long_prompt():
    engine = fake_engine(decode_rows=4)
    short = engine.submit(tokens(20), max_new_tokens=20)
    while not short.events:
        engine.step()
    engine.submit(tokens(400, seed=1), max_new_tokens=1)
    engine.submit(tokens(400, seed=2), max_new_tokens=1)
    for _ in range(8):
        before = len(short.events)
        engine.step()
        engine.step()
        assert len(short.events) == before + 1


def test_one_row_that_breaks_breaks_those_of_its_call_and_no_other(monkeypatch):
    engine = fake_engine(decode_rows=2)
    both = [engine.submit(each, max_new_tokens=9) for each in prompts(2)]
    waiting = engine.submit(tokens(30, seed=5), max_new_tokens=4)

    def broken(sequences, tokens):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine._rows, "advance", broken)
        while not all(each.is_done for each in both):
            engine.step()
    while engine.step():
        pass
    for generation in both:
        with pytest.raises(RuntimeError, match="out of memory"):
            generation.completion()
    assert waiting.completion().tokens == expected_answer(tokens(30, seed=5), 4)
    engine.cache.check()


def test_a_prompt_that_is_given_up_leaves_what_it_captured():
    engine = fake_engine(policy="dense:64")
    prompt = tokens(400)
    generation = engine.submit(prompt)
    for _ in range(7):
        engine.step()
    generation.close()
    engine.cache.check()
    assert generation.is_done
    again = engine.generate(prompt, max_new_tokens=3)
    assert again.report.reused == 192
    assert again.tokens == expected_answer(prompt, 3)


def test_one_that_fails_leaves_nothing(monkeypatch):
    engine = fake_engine(policy="dense:64")
    prompt = tokens(400)
    generation = engine.submit(prompt)
    for _ in range(7):
        engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(engine.driver, "advance", lambda live, tokens: 1 / 0)
        engine.step()
    assert isinstance(generation.error, ZeroDivisionError)
    assert engine.generate(prompt, max_new_tokens=3).report.reused == 0


@pytest.mark.parametrize("numerics", ["fast", "strict"])
def test_a_chat_goes_on_where_the_last_answer_ended(numerics):
    """In fast numerics nothing but the new message is computed; in strict, answers' states are not kept."""
    engine = fake_engine(policy="learned", numerics=numerics)
    history = tokens(50)
    beyond = []
    for turn in range(10):
        completion = engine.generate(history, max_new_tokens=12)
        assert completion.tokens == expected_answer(history, 12)
        beyond.append(completion.report.num_tokens - completion.report.reused)
        history = np.concatenate((history, completion.tokens, tokens(9, seed=100 + turn)))
    # The last token of an answer was never computed; then the new message's nine.
    news = [10] * 9
    assert (beyond[1:] == news) == (numerics == "fast")


def test_an_answer_that_ends_with_its_end_token_was_computed_whole():
    engine = fake_engine(policy="learned", numerics="fast")
    history = tokens(50)
    answer = expected_answer(history, 12)
    end = next(index for index, token in enumerate(answer) if token not in answer[:index] and index > 3)
    engine._served.generation_settings._model.generation_config.eos_token_id = answer[end]
    completion = engine.generate(history, max_new_tokens=12)
    assert completion.tokens == answer[:end]
    longer = engine.generate(np.concatenate((history, completion.tokens, [3, 4])), max_new_tokens=1)
    assert longer.report.reused == 50 + end


@pytest.mark.parametrize("length", [31, 32, 33, 34, 63, 64, 65, 66, 97, 200])
@pytest.mark.parametrize("policy", ["dense:1", "dense:16", "learned", "tail"])
def test_no_call_is_shorter_than_an_engine_computes_exactly(length, policy):
    engine = fake_engine(policy=policy, cuts=Cuts(every=32, grid=1, least=2))
    prompt = tokens(length)
    cold = engine.generate(prompt, max_new_tokens=1)
    warm = engine.generate(prompt, max_new_tokens=1)
    longer = engine.generate(np.concatenate((prompt, tokens(5, seed=3))), max_new_tokens=1)
    assert cold.tokens == warm.tokens == expected_answer(prompt, 1)
    assert longer.report.num_tokens - longer.report.reused >= 2
    counts = [count for _, count in engine.driver.calls]
    assert min(counts) >= 2
    assert max(counts) <= 33


def test_cuts_meet_every_position_that_is_wanted_and_can_be():
    cuts = Cuts(every=32, grid=1, least=2)
    for length in range(2, 140):
        wanted = cuts.thinned(range(1, length + 1, 7), start=0, num_tokens=length)
        position, met = 0, []
        while position < length:
            end = cuts.next(position, length, wanted)
            assert 2 <= end - position <= 33
            position = end
            met.append(end)
        assert position == length
        assert set(wanted) <= set(met)


def test_strict_cuts_before_a_position_hang_on_the_position_alone():
    cuts = Cuts(every=16, grid=16)
    for length in (1, 15, 16, 17, 100):
        ends = []
        position = 0
        while position < length:
            position = cuts.next(position, length, {48})
            ends.append(position)
        assert ends == [*range(16, length, 16), length]
