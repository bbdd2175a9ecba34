"""One request from prompt to last token: streams, seeds, stops, ends, and turns beside others."""

import functools
import itertools

import torch
from tiny_engine import assert_equal, open_engine

from families import tiny_prompt
from milepost.engines.transformers import driver as driver_module

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


def test_streaming_gives_the_tokens_and_the_text_of_not_streaming(engine):
    prompt = tiny_prompt(150)[0].numpy()
    whole = engine.generate(prompt, max_new_tokens=12, ignore_end_token=True)
    events = list(engine.stream(prompt, max_new_tokens=12, ignore_end_token=True))
    assert tuple(e.token for e in events if e.token is not None) == whole.tokens
    assert "".join(e.text for e in events) == whole.text
    assert len(whole.text) == 12


def test_two_streams_and_a_request_between_lose_no_token_to_each_other(engine):
    one, other = tiny_prompt(100, seed=1)[0].numpy(), tiny_prompt(190, seed=2)[0].numpy()
    expected = [engine.generate(p, max_new_tokens=10, ignore_end_token=True).tokens for p in (one, other)]
    streams = [engine.stream(p, max_new_tokens=10, ignore_end_token=True) for p in (one, other)]
    got = [[], []]
    for turn, pair in enumerate(itertools.zip_longest(*streams)):
        for tokens, event in zip(got, pair, strict=True):
            tokens.append(event.token)
        if turn == 3:
            assert engine.generate(one, max_new_tokens=10, ignore_end_token=True).tokens == expected[0]
    assert [tuple(tokens) for tokens in got] == expected


def test_equal_seeds_answer_alike_and_other_seeds_otherwise(engine):
    prompt = tiny_prompt(70)[0].numpy()
    options = {"max_new_tokens": 12, "temperature": 1.5, "ignore_end_token": True}
    first = engine.generate(prompt, seed=3, **options)
    beside = engine.generate_many([prompt, tiny_prompt(90, seed=9)[0].numpy()], seed=3, **options)[0]
    assert first.tokens == beside.tokens
    assert first.tokens != engine.generate(prompt, seed=4, **options).tokens


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(engine):
    prompt = tiny_prompt(70)[0].numpy()
    whole = engine.generate(prompt, max_new_tokens=12, ignore_end_token=True)
    for at, length in ((4, 1), (3, 3), (0, 2)):
        stop = whole.text[at : at + length]
        cut = whole.text.find(stop)
        answer = engine.generate(prompt, max_new_tokens=12, ignore_end_token=True, stop=["nothing", stop])
        assert (answer.text, answer.finish_reason) == (whole.text[:cut], "stop")
        assert answer.tokens == whole.tokens[: cut + length]
    missed = engine.generate(prompt, max_new_tokens=12, ignore_end_token=True, stop=whole.text[-1] + "!")
    assert (missed.text, missed.finish_reason) == (whole.text, "length"), (
        "what was held back is given at the end"
    )


def test_an_end_token_ends_the_answer_and_is_no_part_of_it(model, monkeypatch):
    prompt = tiny_prompt(70)[0].numpy()
    engine = open_engine(model)
    whole = engine.generate(prompt, max_new_tokens=12, ignore_end_token=True)
    end = whole.tokens[5]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [2, end])
    answer = engine.generate(prompt, max_new_tokens=12)
    assert answer.finish_reason == "stop"
    assert answer.tokens == whole.tokens[: whole.tokens.index(end)]
    held = engine.generate(prompt, max_new_tokens=12, stop=answer.text[-1] + "?")
    assert held.text == answer.text
    events = list(engine.stream(prompt, max_new_tokens=12, stop=answer.text[-1] + "?"))
    assert [e.token for e in events] == [*answer.tokens, None], (
        "text that the end settles comes without a token"
    )
    assert "".join(e.text for e in events) == answer.text
    assert engine.generate(prompt, max_new_tokens=12, ignore_end_token=True).tokens == whole.tokens


def test_tenants_share_nothing(engine):
    prompt = tiny_prompt(200)[0].numpy()
    one, other = (engine.generate(prompt, max_new_tokens=3, tenant=tenant) for tenant in "ab")
    assert (one.report.reused, other.report.reused, other.report.unseen) == (0, 0, 200)
    assert_equal([one], [other])
    assert engine.generate(prompt, max_new_tokens=1, tenant="a").report.reused == 192


def test_a_prompt_of_one_token_is_answered(engine):
    assert len(engine.generate([5], max_new_tokens=3, ignore_end_token=True).tokens) == 3


def test_captures_are_timed_by_the_device_which_is_waited_for_at_the_prompts_end_alone(engine, monkeypatch):
    log, ticks = [], itertools.count()
    upstream = driver_module.capture_state
    for name, answer in (
        ("wait_for_device", lambda: None),
        ("moment", lambda: next(ticks)),
        ("seconds_between", lambda start, end: 1000.0 * (end - start)),
    ):
        noted = functools.partial(lambda name, answer, *args: log.append(name) or answer(*args), name, answer)
        monkeypatch.setattr(engine.driver, name, noted)
    monkeypatch.setattr(
        driver_module, "capture_state", lambda *args: log.append("capture") or upstream(*args)
    )
    answer = engine.generate(tiny_prompt(150)[0].numpy(), max_new_tokens=1)

    captured = ["moment", "capture", "moment"]
    stored = ["wait_for_device", "wait_for_device", "seconds_between", "seconds_between"]
    assert log == [*captured, *captured, *stored]
    assert 2000 <= answer.capture_seconds < 2100


def test_fast_numerics_take_turns_too(model):
    engine = open_engine(model, numerics="fast", policy="none")
    long, short = tiny_prompt(1300)[0].numpy(), tiny_prompt(20)[0].numpy()
    positions = []
    generation = engine.submit(long, max_new_tokens=1)
    engine.submit(short, max_new_tokens=20, ignore_end_token=True)
    while not generation.is_done:
        engine.step()
        positions.append(generation.num_prompt_tokens_done)
    assert sorted(set(positions)) == [256, 512, 768, 1024, 1280, 1300]
