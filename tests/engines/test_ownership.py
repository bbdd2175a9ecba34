"""One owner at a time: a second thread gets an error at once, and whoever is at work is unharmed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch

from families import tiny_model, tiny_prompt
from milepost.engines.engine import Engine
from milepost.engines.ownership import Ownership, ownership_of
from milepost.errors import ConcurrentUseError

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)

PROMPT = tiny_prompt(200, seed=1)[0].numpy()


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3_5")


@pytest.fixture
def engine(model):
    return Engine.open(model, capacity="64MiB", segment_tokens=64, policy="dense:64")


@pytest.fixture
def other_thread():
    with ThreadPoolExecutor(1, thread_name_prefix="second") as pool:
        yield lambda call: pool.submit(call).result(timeout=60)


def ask(engine):
    return engine.generate(PROMPT, max_new_tokens=4, ignore_end_token=True)


def calls_of(engine):
    generation = engine.submit(PROMPT[:10], max_new_tokens=1)
    stream = engine.stream(PROMPT[:10], max_new_tokens=1)
    return {
        "submit": lambda: engine.submit(PROMPT, max_new_tokens=1),
        "step": engine.step,
        "generate": lambda: ask(engine),
        "stream": lambda: next(stream),
        "measure": lambda: engine.measure_prefill(10),
        "invalidate": engine.invalidate,
        "close": engine.close,
        "close of a request": generation.close,
    }


def test_a_second_thread_gets_a_clear_error_at_once_whatever_it_calls(engine, other_thread):
    expected = ask(engine)
    sibling = engine.sibling(capacity="8MiB", policy="none")
    calls = calls_of(engine) | {f"{name} of a sibling": call for name, call in calls_of(sibling).items()}
    refused = {}

    def from_another_thread(_):
        # While this thread waits inside its own call.
        for name, call in () if refused else calls.items():
            with pytest.raises(ConcurrentUseError) as raised:
                other_thread(call)
            refused[name] = str(raised.value)

    (answer,) = engine.generate_many(
        [PROMPT], on_step=from_another_thread, max_new_tokens=4, ignore_end_token=True
    )
    assert answer.tokens == expected.tokens
    assert refused.keys() == calls.keys()
    assert "'second_0'" in refused["generate"]
    assert "'MainThread' is at work" in refused["generate"]
    assert "queue" in refused["generate"]
    assert ask(engine).tokens == expected.tokens
    engine.cache.check()


def test_threads_that_race_each_get_the_right_answer_or_the_error(engine):
    expected = ask(engine).tokens
    num_threads, num_rounds = 4, 6
    barrier = threading.Barrier(num_threads)

    def race(_):
        outcomes = []
        for _ in range(num_rounds):
            barrier.wait(timeout=60)
            try:
                outcomes.append(ask(engine).tokens)
            except ConcurrentUseError:
                outcomes.append(None)
        return outcomes

    with ThreadPoolExecutor(num_threads) as pool:
        outcomes = [outcome for found in pool.map(race, range(num_threads)) for outcome in found]
    assert {*outcomes} <= {expected, None}
    assert outcomes.count(expected) >= num_rounds, "in every round one thread is served"
    assert ask(engine).tokens == expected
    engine.cache.check()
    assert not engine.cache._store.queue.pinned


def test_without_the_guard_two_threads_would_be_inside_at_once(engine, other_thread, monkeypatch):
    monkeypatch.setattr(Ownership, "call", lambda self, name: nullcontext())
    inside = []
    engine.generate_many(
        [PROMPT],
        on_step=lambda _: inside.append(other_thread(lambda: engine.step() and "in")),
        max_new_tokens=2,
    )
    assert "in" in inside


def test_threads_take_turns_under_a_lock_of_their_own(engine):
    expected = ask(engine).tokens
    lock = threading.Lock()

    def locked(_):
        with lock:
            return ask(engine).tokens

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(locked, range(6))) == {expected}


def test_a_stream_between_two_tokens_holds_nothing(engine, other_thread):
    expected = ask(engine).tokens
    stream = engine.stream(PROMPT, max_new_tokens=4, ignore_end_token=True)
    tokens = [next(stream).token]
    assert other_thread(lambda: ask(engine)).tokens == expected
    assert (*tokens, *(event.token for event in stream)) == expected
    assert tuple(other_thread(lambda: [event.token for event in engine.stream(
        PROMPT, max_new_tokens=4, ignore_end_token=True)])) == expected  # fmt: skip


def test_calls_between_turns_of_the_same_thread_are_let_through(engine):
    expected = ask(engine).tokens
    inner = []

    def on_step(_):
        if not inner:
            inner.append(ask(engine).tokens)
            engine.submit(PROMPT[:10], max_new_tokens=1)

    (answer,) = engine.generate_many([PROMPT], on_step=on_step, max_new_tokens=4, ignore_end_token=True)
    assert answer.tokens == inner[0] == expected


@pytest.mark.parametrize("call", ["step", "generate", "measure", "close", "invalidate"])
def test_a_call_in_the_middle_of_a_turn_is_refused_and_only_that_request_fails(engine, model, call):
    expected = ask(engine).tokens
    calls = calls_of(engine)
    engine.step(), engine.step()
    hook = model.model.layers[0].register_forward_hook(lambda *_: calls[call]() and None)
    with pytest.raises(ConcurrentUseError, match="middle of a turn"):
        engine.generate(PROMPT, max_new_tokens=1)
    hook.remove()
    assert ask(engine).tokens == expected
    engine.cache.check()


def test_engines_over_one_model_share_its_owner_and_nothing_is_hung_on_the_model(engine, model):
    assert engine._served.ownership is ownership_of(model)
    assert engine._served.ownership is not ownership_of(tiny_model("qwen3_5"))
    assert not any("owner" in name for name in vars(model))
