"""The engine on tiny models: whatever the cache does, the answers are those of an engine without one."""

import gc
import itertools
import logging
import signal
import weakref

import numpy as np
import pytest
import torch
from characters import Characters

from families import tiny_model, tiny_prompt
from milepost.engines.transformers import admission as admission_module
from milepost.engines.transformers import generation as generation_module
from milepost.engines.transformers import prefill as prefill_module
from milepost.engines.transformers import recall as recall_module
from milepost.engines.transformers.engine import Engine
from milepost.engines.transformers.snapshot import capture_state, zero_state
from milepost.errors import CapacityError, ConfigurationError, InvalidRequestError, UnsupportedModelError
from milepost.placement import NoCheckpoints, Placement, PlacementPolicy

# Tiny matrices gain nothing from more, and test processes would fight over the cores.
torch.set_num_threads(1)

SEGMENT = 64


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3_5")


def open_engine(model, **options) -> Engine:
    return Engine.open(
        model, **{"capacity": "64MiB", "segment_tokens": SEGMENT, "tokenizer": Characters()} | options
    )


@pytest.fixture
def engine(model):
    opened = open_engine(model, policy="dense:64")
    yield opened
    opened.cache.check()
    assert not opened.cache._store._pinned, "what no request needs any more is not held"


def branching_prompts(count: int = 9, length: int = 330) -> list[np.ndarray]:
    """Prompts that share prefixes of many depths, on and off the grid, and some that are asked twice."""
    base = tiny_prompt(length, seed=1)[0].numpy()
    prompts = []
    for number in range(count):
        depth = (number * 67) % length
        tail = tiny_prompt(1 + 29 * number % 150, seed=100 + number)[0].numpy()
        prompts.append(np.concatenate((base[:depth], tail)))
    return [base, *prompts, base, prompts[-1], base[:256]]


def without_cache(model, prompts, **options):
    cold = open_engine(model, policy=NoCheckpoints())
    completions = [cold.generate(prompt, **options) for prompt in prompts]
    assert cold.cache.statistics().reused == 0
    return completions


def assert_equal(warm, cold):
    assert [c.tokens for c in warm] == [c.tokens for c in cold]
    assert [c.prompt_logits_digest for c in warm] == [c.prompt_logits_digest for c in cold]


# Exactness


@pytest.mark.parametrize(
    ("family", "policy"),
    [
        ("qwen3_5", "dense:64"),
        ("qwen3_5", "balanced:3"),
        ("qwen3_5", "tail+junction"),
        ("qwen3_5", "learned"),
        ("mamba2", "dense:128"),
        ("jamba", "balanced:2"),
        ("gemma3", "dense:64"),
        ("gpt_oss", "tail+junction"),
        ("qwen3", "learned"),
    ],
)
def test_warm_equals_cold_bit_for_bit_across_interleaved_requests(family, policy):
    model, prompts = tiny_model(family), branching_prompts()
    warm = open_engine(model, policy=policy, max_running=3)
    assert_equal(
        warm.generate_many(prompts, max_new_tokens=5), without_cache(model, prompts, max_new_tokens=5)
    )
    assert warm.cache.statistics().reused > 0
    warm.cache.check()


def test_a_wrong_state_would_show(engine, model, monkeypatch):
    prompts = branching_prompts()[:2] * 2
    monkeypatch.setattr(
        prefill_module, "capture_state", lambda cache, position: zero_state(capture_state(cache, position))
    )
    warm = [engine.generate(prompt, max_new_tokens=5) for prompt in prompts]
    with pytest.raises(AssertionError):
        assert_equal(warm, without_cache(model, prompts, max_new_tokens=5))


def test_interleaved_equals_sequential(model):
    prompts = branching_prompts()
    together = open_engine(model).generate_many(prompts, max_new_tokens=5)
    one_engine = open_engine(model)
    assert_equal(together, [one_engine.generate(prompt, max_new_tokens=5) for prompt in prompts])


def test_each_request_advances_a_cache_of_its_own(engine):
    prompt = tiny_prompt(200)[0].numpy()
    engine.generate(prompt, max_new_tokens=1)
    one, other = (engine.submit(prompt, max_new_tokens=8, ignore_end_token=True) for _ in range(2))
    for _ in range(6):
        engine.step()
    live, its = one._prefill.live, other._prefill.live
    pointers = [
        {
            tensor.data_ptr()
            for layer in cache.layers
            for tensor in vars(layer).values()
            if torch.is_tensor(tensor)
        }
        for cache in (live.cache, its.cache)
    ]
    assert pointers[0]
    assert pointers[0].isdisjoint(pointers[1])
    engine.close()


@pytest.mark.parametrize(("policy", "num_states"), [("dense:64", 4), ("tail", 6)])
def test_a_budget_in_which_everything_is_evicted_all_the_time_changes_no_answer(model, policy, num_states):
    prompts = branching_prompts()
    capacity = num_states * 58_880  # of a state with one segment of KV
    warm = open_engine(model, policy=policy, capacity=capacity, max_running=3)
    answers = [*warm.generate_many(prompts, max_new_tokens=3), *warm.generate_many(prompts, max_new_tokens=3)]
    assert_equal(answers, without_cache(model, prompts, max_new_tokens=3) * 2)
    held = warm.cache.statistics()
    assert held.checkpoint_bytes + held.kv_bytes <= capacity
    assert held.num_evictions > 5
    warm.cache.check()


def test_fast_numerics_resume_inside_a_segment_and_equal_to_rounding(model, monkeypatch):
    logits = []
    monkeypatch.setattr(generation_module, "_digest", lambda seen: logits.append(seen) or "")
    warm = open_engine(model, numerics="fast", policy="dense:64", segment_tokens=256)
    prompts = branching_prompts()
    answers = [warm.generate(prompt, max_new_tokens=4) for prompt in prompts]
    num_warm = len(logits)
    cold = without_cache(model, prompts, max_new_tokens=4)
    resumed = {answer.report.reused for answer in answers}
    assert any(position % 256 for position in resumed), "the odd tail of the KV was used"
    assert all(position % 64 == 0 for position in resumed)
    for mine, theirs in zip(logits[:num_warm], logits[num_warm:], strict=True):
        assert (mine - theirs).norm() / theirs.norm() < 1e-4
    assert [a.tokens for a in answers] == [a.tokens for a in cold]
    held = warm.cache.statistics()
    store = warm.cache._store
    tails = [c.payload.tail for n in store.tree.nodes() for c in n.checkpoints if c.payload.tail is not None]
    assert tails
    assert held.checkpoint_bytes == held.num_checkpoints * warm.footprint.checkpoint_bytes + sum(
        tail.num_bytes for tail in tails
    )
    warm.cache.check()


# Generation


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


# Models without recurrent state


def test_a_model_without_state_says_that_only_kv_is_reused_and_reuses_it(caplog):
    engine = open_engine(tiny_model("qwen3"))
    assert engine.description == "qwen3 has no recurrent state: only its KV is reused"
    assert [(r.levelno, engine.description in r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, True)
    ]
    prompt = tiny_prompt(200)[0].numpy()
    answer = engine.generate(prompt, max_new_tokens=1)
    assert answer.captured_positions == (), "what keeps KV is no state"
    assert engine.generate(prompt[:150], max_new_tokens=1).report.reused == 128
    assert engine.cache.statistics().checkpoint_bytes == 0


def test_a_model_with_state_opens_without_a_warning(model, caplog):
    assert open_engine(model).generate(tiny_prompt(200)[0].numpy(), max_new_tokens=1).captured_positions
    assert not caplog.records


def test_a_hybrid_says_what_a_checkpoint_weighs(engine):
    assert (
        engine.description == "one checkpoint of qwen3_5_text takes 26.1 kB, as much as the KV of 51 tokens"
    )


def test_a_model_without_kv_says_what_a_checkpoint_weighs():
    assert "KV" not in open_engine(tiny_model("mamba2"), segment_tokens=None).description


# Interrupts, errors, giving up


class Trap:
    """Raises at the n-th forward call of a driver."""

    def __init__(self, driver, at, error):
        self.advance, self.left, self.error = driver.advance, at, error

    def __call__(self, live, tokens):
        self.left -= 1
        if self.left == 0:
            self.advance(live, tokens[: max(1, tokens.numel() // 2)])
            raise self.error
        return self.advance(live, tokens)


def assert_usable(engine, model, prompts):
    engine.cache.check()
    assert not engine.cache._store._pinned
    assert engine.step() is None, "nothing was left in the queue"
    answers = engine.generate_many(prompts, max_new_tokens=3)
    assert_equal(answers, without_cache(model, prompts, max_new_tokens=3))


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
    owner = engine.cache if where != "release" else generation_module.Lease
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
        assert engine.step() == (generations[1], [])
    while engine.step() is not None:
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
    live = weakref.ref(generation._prefill.live.cache)
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
    assert engine.cache._store._pinned or generation._lease is not None
    del stream  # as the collector might, in the middle of a change of the store
    assert not generation.is_closed
    assert generation._lease is not None
    assert generation.is_done
    with pytest.raises(InvalidRequestError, match="given up"):
        generation.completion()
    assert engine.step() is None
    assert generation._lease is None
    assert_usable(engine, model, prompts)


# Memory


def live_payload_bytes(payloads) -> int:
    gc.collect()
    return sum(
        payload.num_bytes if hasattr(payload, "snapshot") else payload.segment.num_bytes
        for reference in payloads
        if (payload := reference()) is not None
    )


@pytest.mark.parametrize("numerics", ["strict", "fast"])
def test_what_the_cache_dropped_lives_nowhere_else(model, monkeypatch, numerics):
    made = []
    for name in ("StoredState", "StoredKV"):
        kind = getattr(prefill_module, name)

        def note(self, *args, upstream=kind.__init__, **fields):
            upstream(self, *args, **fields)
            made.append(weakref.ref(self))

        tracked = type(name, (kind,), {"__slots__": ("__weakref__",), "__init__": note})
        monkeypatch.setattr(prefill_module, name, tracked)
    engine = open_engine(model, policy="dense:64", capacity=4 * 58_880, numerics=numerics)
    generations = [
        engine.submit(prompt, max_new_tokens=number, ignore_end_token=True)
        for number, prompt in enumerate(branching_prompts(), start=1)
    ]
    while not generations[0].is_done:
        engine.step()
    while engine.step() is not None:
        held = engine.cache.statistics()
        if all(g.num_prompt_tokens_done == g.request.tokens.size for g in generations):
            assert live_payload_bytes(made) == held.checkpoint_bytes + held.kv_bytes
    completions = [generation.completion() for generation in generations]
    held = engine.cache.statistics()
    assert held.num_evictions > 5
    assert live_payload_bytes(made) == held.checkpoint_bytes + held.kv_bytes > 0
    del completions


def test_a_request_that_is_given_up_keeps_no_payload_alive(engine):
    prompt = tiny_prompt(300)[0].numpy()
    engine.generate(prompt[:150], max_new_tokens=1)
    generation = engine.submit(prompt)
    engine.step()
    lease = generation._lease
    assert lease.resume_position == 128
    generation.close()
    assert generation._lease is None
    assert lease.state is None
    assert not lease.kv_segments


# Time


def test_captures_are_timed_between_waits_for_the_device(engine, monkeypatch):
    log = []
    upstream = prefill_module.capture_state
    monkeypatch.setattr(engine.driver, "wait_for_device", lambda: log.append("wait"))
    monkeypatch.setattr(
        prefill_module, "capture_state", lambda *args: log.append("capture") or upstream(*args)
    )
    engine.generate(tiny_prompt(150)[0].numpy(), max_new_tokens=1)
    captures = [index for index, entry in enumerate(log) if entry == "capture"]
    assert len(captures) == 2
    for index in captures:
        assert log[index - 1] == log[index + 1] == "wait"
    assert log[-2:] == ["wait", "wait"], "before and after storing"


def test_fast_numerics_take_turns_too(model):
    engine = open_engine(model, numerics="fast", policy="none")
    long, short = tiny_prompt(1300)[0].numpy(), tiny_prompt(20)[0].numpy()
    positions = []
    generation = engine.submit(long, max_new_tokens=1)
    engine.submit(short, max_new_tokens=20, ignore_end_token=True)
    while not generation.is_done:
        engine.step()
        positions.append(generation.num_prompt_tokens_done)
    assert sorted(set(positions)) == [512, 1024, 1300]


# Opening


def test_a_model_that_is_refused_is_given_back_as_it_came_and_one_that_is_open_keeps_its_fix():
    def is_fixed(model):
        return any("forward" in vars(module) for module in model.modules())

    model = tiny_model("jamba")
    with pytest.raises(CapacityError):
        open_engine(model, capacity=1)
    assert not is_fixed(model)
    engine = open_engine(model)
    with pytest.raises(CapacityError):
        open_engine(model, capacity=1)
    assert is_fixed(model), "another engine's fix stays"
    engine.close()
    assert is_fixed(model)


def test_a_sibling_answers_alike_from_a_cache_of_its_own_and_probes_nothing(model, monkeypatch):
    one = open_engine(model, policy="dense:64", numerics="fast")
    monkeypatch.setattr(admission_module, "probe_resume", lambda driver: pytest.fail("probed again"))
    other = one.sibling(capacity="32MiB", policy="none")
    prompt = tiny_prompt(200)[0].numpy()
    assert one.generate(prompt, max_new_tokens=3).tokens == other.generate(prompt, max_new_tokens=3).tokens
    assert one.cache.statistics().num_checkpoints == 3
    assert other.cache.statistics().num_checkpoints == 0
    assert other.cache.statistics().capacity_bytes == 32 << 20
    assert (other.cache.grid, other.segment_tokens) == (one.cache.grid, one.segment_tokens)
    with pytest.raises(ConfigurationError, match="did you mean"):
        one.sibling(capacity="1MiB", policy="lerned")


def test_a_request_that_is_not_done_has_no_answer_yet(engine):
    generation = engine.submit([1, 2, 3], max_new_tokens=4)
    with pytest.raises(InvalidRequestError, match="not done yet"):
        generation.completion()
    engine.close()


def test_a_bad_prompt_among_good_ones_queues_none_of_them(engine):
    with pytest.raises(InvalidRequestError, match="empty"):
        engine.generate_many([[1, 2, 3], []], max_new_tokens=2)
    assert engine.step() is None
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
    assert engine.step() is None


class OffGrid(PlacementPolicy):
    def place(self, request):
        return Placement((65,))


def test_a_policy_off_the_rules_fails_its_request_and_nothing_else(model):
    engine = open_engine(model, policy=OffGrid())
    with pytest.raises(ConfigurationError, match=r"policy OffGrid .* on the grid of 64"):
        engine.generate(tiny_prompt(100)[0].numpy(), max_new_tokens=2)
    engine.cache.check()
    assert not engine.cache._store._pinned


# Bad input


def test_one_text_where_several_prompts_belong_is_refused(engine):
    with pytest.raises(InvalidRequestError, match="one text"):
        engine.generate_many("the quick brown fox")
    for prompts in (5, None, {"role": "user", "content": "hi"}):
        with pytest.raises(InvalidRequestError, match="give a list of prompts"):
            engine.generate_many(prompts)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"policy": "lerned"}, "did you mean 'learned'"),
        ({"policy": "balanced:cout=3"}, "did you mean 'count'"),
        ({"policy": "balanced:0"}, "count=0"),
        ({"numerics": "exact"}, "give one of strict, fast"),
        ({"segment_tokens": 65}, "a multiple of 64"),
        ({"segment_tokens": 0}, "segment_tokens=0"),
        ({"capacity": "4 potatoes"}, "not an amount of memory"),
        ({"max_running": 0}, "max_running=0"),
        ({"max_running": "2"}, "max_running='2'"),
        ({"max_running": None}, "max_running=None"),
        ({"segment_tokens": "64"}, "segment_tokens='64'"),
        ({"segment_tokens": True}, "segment_tokens=True"),
        ({"numerics": ["strict"]}, "give one of strict, fast"),
        ({"tokenizer": "gpt2"}, "'gpt2' has no encode and decode"),
        ({"generation_config": {"num_beams": 3}}, "num_beams=3"),
    ],
)
def test_a_bad_option_of_the_engine_is_refused_by_name(model, options, says):
    with pytest.raises(ConfigurationError, match=says):
        open_engine(model, **options)


def test_a_misspelt_option_is_a_type_error(model, engine):
    with pytest.raises(TypeError, match="polcy"):
        open_engine(model, polcy="learned")
    with pytest.raises(TypeError, match="temprature"):
        engine.generate([1], temprature=1.0)
    assert engine.step() is None


def test_a_budget_below_one_checkpoint_names_the_least_that_works_and_that_works(model):
    with pytest.raises(CapacityError, match=r"give at least 58,880 bytes"):
        open_engine(model, capacity=58_879)
    engine = open_engine(model, capacity=58_880, policy="tail")
    prompt = tiny_prompt(70)[0].numpy()
    engine.generate(prompt, max_new_tokens=1)
    assert engine.generate(prompt, max_new_tokens=1).report.reused == 64


def test_a_model_that_is_no_decoder_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        Engine.open(T5ForConditionalGeneration(config).eval())
