"""Engines over tiny models, prompts that share prefixes, and the answers of an engine without a cache."""

import numpy as np
from characters import Characters

from families import tiny_prompt
from milepost.engines.engine import Engine
from milepost.placement import NoCheckpoints

SEGMENT = 64


def open_engine(model, **options) -> Engine:
    return Engine.open(
        model, **{"capacity": "64MiB", "segment_tokens": SEGMENT, "tokenizer": Characters()} | options
    )


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
    assert not engine.cache._store.queue.pinned
    assert not engine.step(), "nothing was left in the queue"
    answers = engine.generate_many(prompts, max_new_tokens=3)
    assert_equal(answers, without_cache(model, prompts, max_new_tokens=3))
