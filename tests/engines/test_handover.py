"""A prompt that ``generate`` goes on with: its logits are the engine's own, and nothing is silently wrong."""

from functools import cache

import numpy as np
import pytest
import torch
from fake_driver import fake_engine, tokens
from resuming import tiny_driver
from tiny_engine import SEGMENT, open_engine
from transformers import GenerationConfig

from families import ALL_FAMILIES, tiny_model, tiny_prompt
from milepost.errors import ConcurrentUseError, InvalidRequestError, UnsupportedModelError

# Their own loops cannot go on from their caches.
REFUSED = ("xlstm",)
NUM_STEPS = 4
GREEDY = GenerationConfig(do_sample=False, max_new_tokens=NUM_STEPS, eos_token_id=None, pad_token_id=0)


def prompt(num_tokens, seed=1):
    """Ids that stand for nothing but text in any family."""
    return tiny_prompt(num_tokens, seed=seed)[0] % 200 + 3


def computed(driver, ids, end):
    """Return the live sequence of a prompt's first ``end`` tokens, cut as strict numerics cuts it."""
    live = driver.start(num_tokens=ids.numel())
    for begin in range(0, end, SEGMENT):
        driver.advance(live, ids[begin : begin + SEGMENT])
    return live


def own_logits(driver, ids):
    """The prompt and a greedy answer, as an engine computes them."""
    last = (ids.numel() - 1) // SEGMENT * SEGMENT
    live = computed(driver, ids, last)
    logits = [driver.advance(live, ids[last:])]
    while len(logits) < NUM_STEPS:
        logits.append(driver.advance(live, logits[-1].argmax()[None]))
    return torch.stack(logits)


def loop_logits(model, arguments, **options):
    out = model.generate(
        **arguments, generation_config=GREEDY, output_logits=True, return_dict_in_generate=True, **options
    )
    return torch.cat(out.logits)


@pytest.mark.parametrize("family", [each for each in ALL_FAMILIES if each not in REFUSED])
def test_every_step_of_generate_has_the_engines_own_bits(family):
    driver, ids = tiny_driver(family, torch.float32), prompt(150)
    wanted = own_logits(driver, ids)
    live = computed(driver, ids, 128)
    assert torch.equal(loop_logits(driver.model, driver.hand_over(live, ids)), wanted)
    # What was handed over is a copy, and good for once more.
    assert torch.equal(loop_logits(driver.model, driver.hand_over(live, ids)), wanted)
    # The control: the cache of another prompt.
    other = driver.hand_over(computed(driver, prompt(150, seed=2), 128), ids)
    assert not torch.equal(loop_logits(driver.model, other)[0], wanted[0])


@cache
def made(family):
    return tiny_model(family)


@pytest.mark.parametrize("family", ["qwen3_5", "mamba2", "gemma3"])
@pytest.mark.parametrize("length", [40, 192, 230])
def test_a_prompt_is_handed_over_cold_and_warm_with_the_same_bits(family, length):
    engine, ids = open_engine(made(family), policy="dense:64"), prompt(length)
    wanted = own_logits(engine.driver, ids)
    last = (length - 1) // SEGMENT * SEGMENT
    for reused in (0, last):
        handover = engine.resume(ids)
        assert handover.position == last
        assert handover.report.reused == reused
        assert handover.input_ids.tolist() == [ids[last:].tolist()]
        assert handover.attention_mask.tolist() == [[1] * length]
        assert (handover.cache is None) == (last == 0)
        assert torch.equal(loop_logits(handover.model, handover.arguments), wanted)
    engine.cache.check()
    assert not engine.cache._store.queue.pinned


@pytest.mark.parametrize("policy", ["learned", "none", "vllm"])
@pytest.mark.parametrize("numerics", ["strict", "fast"])
def test_whatever_is_kept_answers_go_on_from_what_was_handed_over(policy, numerics):
    """A policy that keeps KV to a prompt's end gets it as far as it was computed."""
    engine = open_engine(made("qwen3_5"), policy=policy, numerics=numerics)
    for length in (192, 230):
        ids = prompt(length)
        handover = engine.resume(ids)
        out = loop_logits(handover.model, handover.arguments)
        answer = engine.generate(ids, max_new_tokens=NUM_STEPS, ignore_end_token=True)
        assert answer.tokens == tuple(out.argmax(-1).tolist())
        engine.cache.check()


def test_generate_takes_its_own_options():
    engine, ids = open_engine(made("qwen3_5"), policy="dense:64"), prompt(150)
    likeliest = own_logits(engine.driver, ids).argmax(-1).tolist()
    handover = engine.resume(ids)
    logits = loop_logits(handover.model, handover.arguments, suppress_tokens=likeliest)
    said = logits.index_fill(1, torch.tensor(likeliest), -torch.inf).argmax(-1).tolist()
    whole = handover.model.generate(
        ids[None], attention_mask=torch.ones(1, 150), generation_config=GREEDY, suppress_tokens=likeliest
    )
    assert whole[0, 150:].tolist() == said


@pytest.mark.parametrize("where", ["config", "generation_config"])
@pytest.mark.parametrize("family", ["qwen3_5", "qwen3"])
def test_a_model_that_is_set_to_use_no_cache_goes_on_from_the_one_it_is_handed(family, where):
    model, ids = tiny_model(family), prompt(150)
    engine = open_engine(model, policy="dense:64")
    getattr(model, where).use_cache = False
    handover = engine.resume(ids)
    assert handover.position == 128
    options = {"do_sample": False, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0}
    said = handover.model.generate(**handover.arguments, **options)
    assert (
        tuple(said[0, 22:].tolist()) == engine.generate(ids, max_new_tokens=4, ignore_end_token=True).tokens
    )
    # What would drop the cache is no option of the loop's.
    with pytest.raises(TypeError, match="use_cache"):
        handover.model.generate(**handover.arguments, use_cache=False)


def test_families_and_engines_without_such_a_loop_say_so_before_anything_is_run():
    engine = open_engine(made("xlstm"))
    with pytest.raises(UnsupportedModelError, match="xlstm cannot be handed over to generate: generate asks"):
        engine.resume(prompt(150))
    assert engine.cache.statistics().num_requests == 0
    fake = fake_engine()
    with pytest.raises(UnsupportedModelError, match="open it with transformers"):
        fake.resume(tokens(150))
    assert not fake.driver.calls


def test_bad_prompts_and_calls_are_refused(engine):
    with pytest.raises(InvalidRequestError, match="prompt is empty"):
        engine.resume([])
    with pytest.raises(InvalidRequestError, match="breakpoints"):
        engine.resume(np.arange(3, 9), breakpoints=7)
    advance = engine.driver.advance

    def hooked(live, ids):
        with pytest.raises(ConcurrentUseError, match="in the middle of a turn"):
            engine.resume([1, 2])
        return advance(live, ids)

    engine.driver.advance = hooked
    engine.resume(prompt(100))
    engine.driver.advance = advance
