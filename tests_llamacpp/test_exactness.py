"""Strict numerics: what is resumed computes the bits of what was never interrupted, in ten families."""

import numpy as np
import pytest
import torch
from benchmarks.llamacpp.families import FAMILIES
from running import cold, keep, random_tokens, restore, run

WEIGHTS = ("f32", "q8_0")
NUM_BRANCHES = 8


def parent_of(driver, seed):
    """A prompt that was run once, with states kept at odd places on the way, and KV in odd pieces."""
    tokens = random_tokens(700, seed)
    positions = (2, 131, 256, 259, 399, 511, 640)
    live = driver.start(num_tokens=tokens.numel())
    kept = []
    for position in positions:
        driver.advance(live, tokens[live.position : position])
        kept.append(keep(driver, live, (64, 256, 300, 512)))
    run(driver, live, tokens)
    driver.close(live)
    return tokens, kept


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_that_resumes_equals_one_that_starts_over_bit_for_bit(open_driver, family, weights):
    driver, alone = open_driver(family, weights), open_driver(family, weights)
    random = np.random.default_rng(1)
    prompts = [parent_of(driver, seed) for seed in (10, 11)]

    num_differing = 0
    for branch in range(NUM_BRANCHES):
        tokens, kept = prompts[branch % 2]
        state, kv = kept[random.integers(len(kept))]
        position = kv[-1].end
        mine = torch.cat([tokens[:position], random_tokens(int(random.integers(2, 300)), 100 + branch)])
        live = restore(driver, state, kv, mine)
        cut = position + (mine.numel() - position) // 2
        warm = run(driver, live, mine, [cut] if mine.numel() - cut > 1 < cut - position else None)
        num_differing += not torch.equal(warm, cold(alone, mine))
        driver.close(live)

    assert num_differing == 0


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_control_what_another_prompt_left_shows(open_driver, family, weights):
    driver = open_driver(family, weights)
    (tokens, kept), (_, foreign) = parent_of(driver, 10), parent_of(driver, 11)
    (state, kv), (foreign_state, foreign_kv) = kept[3], foreign[3]
    tail = torch.cat([tokens[: kv[-1].end], random_tokens(3, 5)])
    right = run(driver, restore(driver, state, kv, tail), tail)

    has_state = driver.transfer.memory.has_state
    swapped = (foreign_state, kv) if has_state else (state, foreign_kv)
    wrong = run(driver, restore(driver, *swapped, tail), tail)

    assert (wrong - right).abs().max() > 0.5


@pytest.mark.parametrize("family", ["llama", "mamba2", "lfm2", "qwen35"])
def test_cuts_of_two_tokens_and_more_leave_the_bits_alone_and_one_token_does_not(open_driver, family):
    driver, tokens = open_driver(family), random_tokens(601)
    whole = cold(driver, tokens)

    def cut_at(*cuts):
        return run(driver, driver.start(num_tokens=601), tokens, cuts)

    for cuts in ((2,), (599,), (37, 39, 300), (256, 512), (257, 400, 598)):
        assert torch.equal(cut_at(*cuts), whole), cuts
    # The reason for the rule, and the proof that the comparison can fail.
    assert not torch.equal(cut_at(600), whole)


@pytest.mark.parametrize("family", ["llama", "qwen35"])
def test_what_lies_there_still_is_used_in_place_and_the_bits_stay(open_driver, family):
    driver, alone = open_driver(family), open_driver(family)
    tokens, kept = parent_of(driver, 10)
    state, kv = kept[-1]
    loads = []
    load = type(driver.transfer).put

    def put(self, context, sequence, state, pieces, *, spare):
        loads.append(len(pieces))
        load(self, context, sequence, state, pieces, spare=spare)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(driver.transfer), "put", put)
        live = restore(driver, state, kv, tokens)
    mine = torch.cat([tokens[: kv[-1].end], random_tokens(90, 77)])

    assert loads == [0]
    assert torch.equal(run(driver, live, mine), cold(alone, mine))


@pytest.mark.parametrize("family", ["llama", "mamba2", "granitehybrid"])
def test_a_prompt_that_outgrows_its_context_goes_on_bit_for_bit(open_driver, family):
    driver = open_driver(family)
    tokens = random_tokens(1700)
    live = driver.start(num_tokens=100)

    grown = run(driver, live, tokens, [100, 900, 1300])

    assert torch.equal(grown, cold(driver, tokens))


@pytest.mark.parametrize("family", ["jamba", "rwkv7", "llama"])
def test_a_branch_goes_its_own_way(open_driver, family):
    driver = open_driver(family)
    tokens, other = random_tokens(300), random_tokens(40, 9)
    live = driver.start(num_tokens=300)
    driver.advance(live, tokens[:200])

    branch = driver.branch(live)
    mine = torch.cat([tokens[:200], other])

    assert torch.equal(run(driver, branch, mine), cold(open_driver(family), mine))
    assert torch.equal(run(driver, live, tokens), cold(open_driver(family), tokens))
