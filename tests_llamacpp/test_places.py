"""Many live sequences that come, go on from what others left, are answered together, and are lost."""

import random

import pytest
import torch
from running import cold, keep, random_tokens, restore, run

NUM_STEPS = 120
MOST_LIVE = 14


class Traffic:
    """Random calls to a driver, and what each live sequence has seen by now."""

    def __init__(self, driver, *, seed=0):
        self.driver = driver
        self.random = random.Random(seed)
        self.live = []
        self.kept = []

    def begin(self):
        # Few beginnings, so that many share one.
        tokens = random_tokens(self.random.randint(2, 400), self.random.randint(0, 2))
        live = self.driver.start(num_tokens=tokens.numel())
        run(self.driver, live, tokens)
        self.live.append([live, tokens])

    def resume(self, seed):
        state, kv, tokens = self.random.choice(self.kept)
        mine = torch.cat([tokens, random_tokens(self.random.randint(2, 60), seed)])
        live = restore(self.driver, state, kv, mine)
        self.live.append([live, mine])
        return run(self.driver, live, mine), mine

    def keep(self):
        live, tokens = self.random.choice(self.live)
        if live.position == tokens.numel():
            self.kept.append((*keep(self.driver, live, (64, 256)), tokens))

    def answer(self, rows):
        chosen = self.random.sample(self.live, min(len(self.live), 6))
        tokens = [300 + self.random.randint(0, 99) for _ in chosen]
        rows.advance([live for live, _ in chosen], tokens)
        for each, token in zip(chosen, tokens, strict=True):
            each[1] = torch.cat([each[1], torch.tensor([token])])

    def end(self):
        live, _ = self.live.pop(self.random.randrange(len(self.live)))
        # Some forget to say so.
        if self.random.random() < 0.8:
            self.driver.close(live)

    def step(self, number, rows):
        """Do something, and return the logits and the tokens of what was resumed, if anything was."""
        choice = self.random.random()
        if choice < 0.3 and len(self.live) < MOST_LIVE:
            self.begin()
        elif choice < 0.55 and self.kept and len(self.live) < MOST_LIVE:
            return self.resume(number)
        elif choice < 0.7 and self.live:
            self.keep()
        elif choice < 0.85 and self.live and rows is not None:
            self.answer(rows)
        elif self.live:
            self.end()
        return None


@pytest.mark.parametrize("family", ["llama", "qwen35", "mamba2"])
def test_strict_every_resumed_run_has_the_bits_of_a_cold_one(open_driver, family):
    traffic, alone = Traffic(open_driver(family)), open_driver(family)
    num_checked = 0
    for number in range(NUM_STEPS):
        resumed = traffic.step(number, None)
        if resumed is not None:
            logits, tokens = resumed
            assert torch.equal(logits, cold(alone, tokens))
            num_checked += 1

    assert num_checked > 5


@pytest.mark.parametrize("family", ["llama", "qwen35", "mamba2", "falcon-h1"])
def test_fast_every_run_agrees_with_a_cold_one_whoever_else_is_served(open_driver, family):
    driver, alone = open_driver(family, is_strict=False), open_driver(family)
    traffic = Traffic(driver)
    rows = driver.rows(8, is_fixed=False)
    for number in range(NUM_STEPS):
        traffic.step(number, rows)

    assert len(traffic.live) > 3
    for live, tokens in traffic.live:
        mine = torch.cat([tokens, random_tokens(5, 1)])
        assert (run(driver, live, mine) - cold(alone, mine)).abs().max() < 0.02


def test_fast_the_control_a_sequence_that_answers_in_anothers_place_shows(open_driver):
    driver, alone = open_driver("qwen35", is_strict=False), open_driver("qwen35")
    first, second = (Traffic(driver, seed=seed) for seed in (0, 1))
    first.begin()
    second.begin()
    (live, tokens), (_, other) = first.live[0], second.live[0]
    mine = torch.cat([tokens, random_tokens(5, 1)])
    wrong = torch.cat([other[: tokens.numel()], random_tokens(5, 1)])

    assert (run(driver, live, mine) - cold(alone, wrong)).abs().max() > 0.5


def test_fast_pieces_that_several_hold_are_there_once(open_driver):
    driver = open_driver("qwen35", is_strict=False)
    tokens = random_tokens(200)
    live = driver.start(num_tokens=200)
    driver.advance(live, tokens[:150])
    state, kv = keep(driver, live, (64,))
    sizes = []
    load = type(live.context).load

    def note(self, sequence, saved, **options):
        sizes.append(saved.size)
        load(self, sequence, saved, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(live.context), "load", note)
        other = restore(driver, state, kv, tokens)

    # No KV was handed over: the state, and before it an empty one.
    assert sorted(sizes) == [driver.transfer._no_state.size, state.num_bytes]
    assert (run(driver, other, tokens) - run(driver, live, tokens)).abs().max() < 0.02


@pytest.mark.parametrize("is_strict", [True, False])
def test_closing_twice_is_harmless_and_what_was_left_is_not_handed_out_twice(open_driver, is_strict):
    driver = open_driver("llama", is_strict=is_strict)
    live = driver.start(num_tokens=10)
    driver.close(live)
    driver.close(live)
    first, second = driver.start(num_tokens=10), driver.start(num_tokens=10)

    assert (first.context, first.number) != (second.context, second.number)
