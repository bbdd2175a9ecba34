"""The engine over GGUF models: the same class, the same methods, the same promise."""

import numpy as np
import pytest
import torch
from benchmarks.llamacpp.families import FAMILIES

from milepost.engines.audit import Audit
from milepost.engines.engine import Engine

NUM_PROMPTS = 50


def documents(number, *, seed=0):
    """Prompts as people send them: some documents, each with several questions, and some asked again."""
    random = np.random.default_rng(seed)
    shared = [random.integers(290, 512, int(random.integers(150, 700))) for _ in range(5)]
    prompts = []
    for index in range(number):
        question = np.random.default_rng(1000 + index // 6).integers(290, 512, int(random.integers(1, 60)))
        prompts.append(np.concatenate((shared[index % len(shared)], question)))
    return prompts


def answer(engine, prompt, **options):
    return engine.generate(prompt, max_new_tokens=4, temperature=0, ignore_end_token=True, **options)


@pytest.mark.parametrize("weights", ["f32", "q8_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_prompts_have_the_tokens_and_the_bits_of_cold_ones(gguf, family, weights):
    engine = Engine.open(gguf(family, weights), capacity="16MiB", audit=0.2)
    cold = engine.sibling(capacity="16MiB", policy="none")
    differing, num_reused = [], 0
    for index, prompt in enumerate(documents(NUM_PROMPTS)):
        warm, reference = answer(engine, prompt), answer(cold, prompt)
        num_reused += warm.report.reused
        if (warm.tokens, warm.prompt_logits_digest) != (reference.tokens, reference.prompt_logits_digest):
            differing.append(index)

    assert differing == []
    assert num_reused > 0.3 * sum(map(len, documents(NUM_PROMPTS)))
    assert engine.audits.num_audits > 0
    assert engine.audits.num_mismatches == 0
    engine.cache.check()


@pytest.mark.parametrize("family", ["qwen35", "lfm2"])
def test_the_control_the_audit_finds_states_of_another_prompt(gguf, family):
    engine = Engine.open(gguf(family), capacity="16MiB", audit=1.0)
    driver, prompt = engine.driver, documents(1)[0]
    foreign = torch.from_numpy(np.random.default_rng(9).integers(290, 512, prompt.size))
    capture = type(driver).capture

    def swapped(self, sequence):
        other = self.start(num_tokens=sequence.position)
        self.advance(other, foreign[: sequence.position])
        state = capture(self, other)
        self.close(other)
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(driver), "capture", swapped)
        answer(engine, prompt)
    hit = answer(engine, prompt)

    assert engine.audits.num_audits == engine.audits.num_mismatches == 1
    # All is computed anew, and right.
    cold = engine.sibling(capacity="16MiB", policy="none")
    assert hit.prompt_logits_digest == answer(cold, prompt).prompt_logits_digest


def test_an_audit_takes_a_zero_of_either_sign_for_a_zero(gguf, caplog):
    # After two tokens a convolution still holds what it began with: zeros, and of the sign that the last
    # prompt in the same place left.
    engine = Engine.open(gguf("qwen35"), capacity="8MiB", audit=Audit(share=1, on_mismatch="raise"))
    engine.generate([300, 301, 302, 303], max_new_tokens=1, pins=[(2, 300)])
    for number in range(3):
        engine.generate([*range(310 + number, 460)], max_new_tokens=1)
        assert engine.generate([300, 301, 320 + number, 303], max_new_tokens=1).report.reused == 2

    assert engine.audits.num_audits == 3
    assert "audits end here" not in caplog.text


@pytest.mark.parametrize("family", ["mamba2", "qwen35", "llama"])
def test_fast_numerics_give_the_same_answers_up_to_rounding(gguf, family):
    engine = Engine.open(gguf(family), capacity="16MiB", numerics="fast")
    cold = engine.sibling(capacity="16MiB", policy="none")
    prompts = documents(12)
    together = engine.generate_many(
        prompts, max_new_tokens=4, temperature=0, ignore_end_token=True, logprobs=1
    )
    for prompt, warm in zip(prompts, together, strict=True):
        reference = answer(cold, prompt, logprobs=1)
        for mine, its in zip(warm.logprobs, reference.logprobs, strict=True):
            assert mine.logprob == pytest.approx(its.logprob, abs=0.02)
            if mine.token != its.token:  # two that are as likely
                assert abs(its.top[0][1] - mine.top[0][1]) < 0.02
                break
    assert sum(each.report.reused for each in together) > 0
    engine.cache.check()


@pytest.mark.parametrize("numerics", ["strict", "fast"])
def test_requests_that_are_served_together_are_answered_as_alone(gguf, numerics):
    engine = Engine.open(gguf("qwen35", "q8_0"), capacity="32MiB", numerics=numerics)
    prompts = documents(10)
    together = engine.generate_many(prompts, max_new_tokens=6, temperature=0, ignore_end_token=True)
    alone = engine.sibling(capacity="32MiB", policy="none")

    for prompt, each in zip(prompts, together, strict=True):
        reference = alone.generate(prompt, max_new_tokens=6, temperature=0, ignore_end_token=True)
        assert each.tokens == reference.tokens


def test_a_chat_goes_on_where_its_last_answer_ended(gguf):
    engine = Engine.open(gguf("qwen35"), capacity="32MiB", numerics="fast")
    random = np.random.default_rng(0)
    prompt, num_recomputed, num_ideal = random.integers(290, 512, 100), 0, 0
    for turn in range(10):
        done = engine.generate(prompt, max_new_tokens=16, temperature=0, ignore_end_token=True)
        num_recomputed += done.report.num_tokens - done.report.reused
        # The last token of an answer was given out, and not computed.
        num_ideal += 100 if turn == 0 else 31
        prompt = np.concatenate((prompt, done.tokens, random.integers(290, 512, 30)))

    assert num_recomputed <= 1.05 * num_ideal


def test_a_chat_in_messages_reuses_all_but_its_last_turns(gguf):
    engine = Engine.open(gguf("qwen35", "q8_0"), capacity="32MiB")
    messages = []
    for turn in range(6):
        messages.append({"role": "user", "content": f"the question number {turn} and more"})
        before = engine.encode(messages).size
        done = engine.generate(messages, max_new_tokens=24, temperature=0, ignore_end_token=True)
        messages.append({"role": "assistant", "content": done.text})

    assert done.report.reused > 0.7 * before


def test_a_stream_and_stop_strings_work_as_ever(gguf):
    engine = Engine.open(gguf("mamba2"), capacity="16MiB")
    whole = engine.generate("the and", max_new_tokens=12, ignore_end_token=True)
    events = list(engine.stream("the and", max_new_tokens=12, ignore_end_token=True))

    assert "".join(event.text for event in events) == whole.text
    stop = whole.text[3:5]
    stopped = engine.generate("the and", max_new_tokens=12, ignore_end_token=True, stop=stop)
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text[: whole.text.index(stop)]


def test_a_request_that_is_given_up_leaves_the_others_alone(gguf):
    engine = Engine.open(gguf("falcon-h1"), capacity="32MiB", numerics="fast")
    first, second = (
        engine.submit(prompt, max_new_tokens=4, ignore_end_token=True) for prompt in documents(2)
    )
    engine.step()
    first.close()
    for _ in engine.run(second):
        pass

    cold = engine.sibling(capacity="32MiB", policy="none")
    reference = cold.generate(documents(2)[1], max_new_tokens=4, ignore_end_token=True)
    assert second.completion().tokens == reference.tokens


def test_many_more_requests_than_places_are_served(gguf):
    engine = Engine.open(gguf("mamba2"), capacity="32MiB", numerics="fast", max_running=20)
    prompts = [prompt[:60] for prompt in documents(40)]
    answers = engine.generate_many(prompts, max_new_tokens=3, temperature=0, ignore_end_token=True)
    cold = engine.sibling(capacity="32MiB", policy="none")

    for prompt, each in zip(prompts[:8], answers, strict=False):
        assert (
            each.tokens
            == cold.generate(prompt, max_new_tokens=3, temperature=0, ignore_end_token=True).tokens
        )
