"""Requests that begin alike and arrive together compute what they share once."""

import numpy as np
import pytest
from fake_driver import expected_answer, fake_engine, tokens


def joined(*parts):
    return np.concatenate(parts)


SYSTEM = tokens(320, seed=1)
QUESTIONS = [joined(SYSTEM, tokens(24, seed=number)) for number in range(2, 7)]


def computed(engine) -> int:
    """Prompt tokens that went through the model; the answers' tokens are calls of one."""
    return sum(count for _, count in engine.driver.calls if count > 1)


@pytest.mark.parametrize("numerics", ["strict", "fast"])
@pytest.mark.parametrize("policy", ["learned", "tail", "dense:64"])
def test_what_five_share_is_computed_once(policy, numerics):
    engine = fake_engine(policy=policy, numerics=numerics)
    answers = engine.generate_many(QUESTIONS, max_new_tokens=3)
    assert [answer.tokens for answer in answers] == [expected_answer(each, 3) for each in QUESTIONS]
    assert computed(engine) <= 320 + 5 * 24
    assert [answer.report.reused for answer in answers] == [0, 320, 320, 320, 320]


def test_without_a_cache_nothing_is_shared_and_nothing_waits():
    engine = fake_engine(policy="none")
    answers = engine.generate_many(QUESTIONS, max_new_tokens=1)
    assert {answer.report.reused for answer in answers} == {0}
    assert {answer.captured_positions for answer in answers} == {()}


def test_tenants_share_nothing_however_alike():
    engine = fake_engine()
    generations = [
        engine.submit(QUESTIONS[0], max_new_tokens=1, tenant=tenant) for tenant in ("one", "other")
    ]
    while engine.step():
        pass
    assert [generation.completion().report.reused for generation in generations] == [0, 0]


def test_one_that_arrives_later_waits_for_what_is_under_way():
    engine = fake_engine(policy="tail")
    first = engine.submit(QUESTIONS[0], max_new_tokens=1)
    engine.step()
    second = engine.submit(QUESTIONS[1], max_new_tokens=1)
    while engine.step():
        pass
    assert first.completion().report.reused == 0
    assert second.completion().report.reused == 320


def test_nobody_waits_longer_than_computing_it_takes():
    """The leader's own rest is far longer than what the two share."""
    engine = fake_engine(policy="tail")
    leader = engine.submit(joined(SYSTEM[:64], tokens(2000, seed=9)), max_new_tokens=1)
    engine.step()
    short = engine.submit(joined(SYSTEM[:64], tokens(20, seed=8)), max_new_tokens=1)
    while not short.is_done:
        engine.step()
    assert not leader.is_done
    assert short.completion().report.reused == 0


def test_who_waits_goes_on_alone_where_the_one_it_waited_for_is_given_up():
    engine = fake_engine(policy="tail")
    leader = engine.submit(QUESTIONS[0], max_new_tokens=1)
    engine.step()
    follower = engine.submit(QUESTIONS[1], max_new_tokens=1)
    engine.step()
    leader.close()
    while engine.step():
        pass
    assert follower.completion().tokens == expected_answer(QUESTIONS[1], 1)


def test_two_equal_prompts_compute_all_but_the_end_once():
    engine = fake_engine(policy="learned")
    prompt = tokens(333)
    answers = engine.generate_many([prompt, prompt], max_new_tokens=2)
    assert answers[0].tokens == answers[1].tokens == expected_answer(prompt, 2)
    assert answers[1].report.reused == 320
