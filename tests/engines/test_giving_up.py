"""Interrupts, errors and streams that are left leave the engine as usable as before."""

import gc
import signal
import weakref

import pytest
import torch
from tiny_engine import (
    Trap,
    assert_equal,
    assert_usable,
    branching_prompts,
    open_engine,
    without_cache,
)

from milepost.engines import recall as recall_module
from milepost.errors import InvalidRequestError
from milepost.lease import Lease

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)


@pytest.mark.parametrize("at", [1, 2, 3, 6, 7, 9, 12])
def test_an_interrupt_in_prefill_or_decoding_leaves_the_engine_as_usable_as_before(
    engine, model, monkeypatch, at
):
    prompts = branching_prompts()[:3]
    engine.generate(prompts[0], max_new_tokens=1)
    with monkeypatch.context() as patch:
        patch.setattr(engine.driver, "advance", Trap(engine.driver, at, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            engine.generate_many(prompts, max_new_tokens=6, ignore_end_token=True)
    assert_usable(engine, model, prompts)


@pytest.fixture
def interrupts_raise():
    """Ctrl-C raises, also where a shell started the tests in the background and had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts_raise")
@pytest.mark.parametrize("where", ["acquire", "plan", "commit", "discard", "release"])
def test_an_interrupt_in_the_cache_leaves_the_engine_as_usable_as_before(engine, model, monkeypatch, where):
    prompts = branching_prompts()[:3]
    engine.generate(prompts[0], max_new_tokens=1)
    owner = engine.cache if where in ("acquire", "plan", "commit") else Lease
    upstream = getattr(owner, where)

    presses = [signal.SIGINT]

    def interrupted(*args, **options):
        if presses:
            signal.raise_signal(presses.pop())
        return upstream(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, where, interrupted)
        if where == "discard":
            patch.setattr(recall_module, "belongs_to", lambda lease, _: lease.resume_position == 0)
        with pytest.raises(KeyboardInterrupt):
            engine.generate_many(prompts, max_new_tokens=6)
    assert_usable(engine, model, prompts)


def test_an_error_in_one_request_leaves_the_others(engine, model, monkeypatch):
    prompts = branching_prompts()[:3]
    generations = [engine.submit(p, max_new_tokens=4) for p in prompts]
    with monkeypatch.context() as patch:
        patch.setattr(engine.driver, "advance", Trap(engine.driver, 2, RuntimeError("out of memory")))
        engine.step()
        assert engine.step() == [(generations[1], [])]
    while engine.step():
        pass
    cold = without_cache(model, prompts, max_new_tokens=4)
    assert_equal([generations[0].completion(), generations[2].completion()], [cold[0], cold[2]])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            generations[1].completion()


def test_a_stream_outlives_the_failure_of_another_whose_turn_it_gave_out(engine, model, monkeypatch):
    mine, its = branching_prompts()[:2]
    stream = engine.stream(mine, max_new_tokens=6, ignore_end_token=True)
    next(stream)
    other = engine.stream(its, max_new_tokens=6)
    with monkeypatch.context() as patch:
        patch.setattr(engine.driver, "advance", Trap(engine.driver, 2, RuntimeError("it broke")))
        rest = [event.token for event in stream]
    assert len(rest) == 5
    with pytest.raises(RuntimeError, match="it broke"):
        next(other)
    assert_usable(engine, model, [mine, its])


def test_one_of_many_that_fails_leaves_the_others_and_those_of_other_callers(engine, model, monkeypatch):
    prompts = branching_prompts()[:3]
    beside = engine.submit(prompts[2], max_new_tokens=4)
    with monkeypatch.context() as patch:
        patch.setattr(engine.driver, "advance", Trap(engine.driver, 2, RuntimeError("one broke")))
        with pytest.raises(RuntimeError, match="one broke"):
            engine.generate_many(prompts, max_new_tokens=4)
    assert_equal([beside.completion()], without_cache(model, prompts[2:], max_new_tokens=4))
    assert engine.cache.statistics().num_requests == 3, "the other two were answered and are remembered"
    assert_usable(engine, model, prompts)


def test_an_error_that_is_kept_keeps_no_memory_alive(engine, monkeypatch):
    generation = engine.submit(branching_prompts()[0], max_new_tokens=4)
    engine.step()
    live = weakref.ref(generation.prompt.live.cache)
    monkeypatch.setattr(engine.driver, "advance", Trap(engine.driver, 1, RuntimeError("out of memory")))
    engine.step()
    assert isinstance(generation.error, RuntimeError)
    gc.collect()
    assert live() is None


def test_an_interrupt_in_somebody_elses_turn_closes_the_stream_that_gave_it_out(engine, model, monkeypatch):
    prompts = branching_prompts()[:2]
    stream = engine.stream(prompts[0], max_new_tokens=6, ignore_end_token=True)
    next(stream)
    other = engine.submit(prompts[1], max_new_tokens=6)
    with monkeypatch.context() as patch:
        patch.setattr(engine.driver, "advance", Trap(engine.driver, 2, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            list(stream)
    assert other.is_closed
    assert_usable(engine, model, prompts)


def test_a_stream_that_is_collected_touches_the_cache_only_with_the_next_turn(engine, model):
    prompts = branching_prompts()[:2]
    generation = engine.submit(prompts[0], max_new_tokens=9)
    stream = engine.run(generation)
    engine.step()
    assert engine.cache._store.queue.pinned or generation.prompt.lease is not None
    del stream  # as the collector might, in the middle of a change of the store
    assert not generation.is_closed
    assert generation.prompt.lease is not None
    assert generation.is_done
    with pytest.raises(InvalidRequestError, match="given up"):
        generation.completion()
    assert not engine.step()
    assert generation.prompt.lease is None
    assert_usable(engine, model, prompts)


def test_a_request_that_is_not_done_has_no_answer_yet(engine):
    generation = engine.submit([1, 2, 3], max_new_tokens=4)
    with pytest.raises(InvalidRequestError, match="not done yet"):
        generation.completion()
    engine.close()


def test_a_bad_prompt_among_good_ones_queues_none_of_them(engine):
    with pytest.raises(InvalidRequestError, match="empty"):
        engine.generate_many([[1, 2, 3], []], max_new_tokens=2)
    assert not engine.step()
    assert engine.cache.statistics().num_requests == 0


def test_leaving_a_stream_early_releases_what_it_held(engine, model):
    prompts = branching_prompts()[:2]
    engine.generate(prompts[0], max_new_tokens=1)
    for _ in engine.stream(prompts[0], max_new_tokens=50, ignore_end_token=True):
        break
    stream = engine.stream(prompts[1], max_new_tokens=50, ignore_end_token=True)
    next(stream)
    stream.close()
    del stream
    engine.stream(prompts[1], max_new_tokens=50)  # never begun
    assert_usable(engine, model, prompts)


def test_a_stream_that_is_given_up_behind_its_back_says_so(engine):
    stream = engine.stream([1, 2, 3], max_new_tokens=50, ignore_end_token=True)
    next(stream)
    engine.close()
    with pytest.raises(InvalidRequestError, match="given up"):
        list(stream)


def test_leaving_the_block_of_an_engine_gives_up_what_is_queued(model):
    with open_engine(model) as engine:
        generation = engine.submit([1, 2, 3])
    assert generation.is_done
    assert not engine.step()
