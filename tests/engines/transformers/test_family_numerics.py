"""What every family promises: resumed equals uninterrupted bit for bit, and one-shot prefill to rounding."""

from itertools import pairwise

import pytest
import torch
from resuming import (
    assert_same_contents,
    assert_same_logits,
    contents,
    distance,
    grid_cuts,
    prompt,
    resume,
    run_cold,
    tiny_driver,
)

from families import ALL_FAMILIES
from milepost.engines.transformers.snapshot import capture_state

all_families = pytest.mark.parametrize("family", ALL_FAMILIES)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])

# On the grid and off it, with segments of one token and two single steps as in decoding.
UNEVEN_CUTS = (0, 64, 128, 165, 166, 230, 231, 232, 300)


@all_families
@both_dtypes
@pytest.mark.parametrize("position", [128, 165, 166, 231])
def test_a_restored_request_continues_bit_for_bit(family, dtype, position):
    tokens = prompt(300)
    uninterrupted = run_cold(tiny_driver(family, dtype), tokens, UNEVEN_CUTS)

    logits, live = resume(uninterrupted, position, tokens, UNEVEN_CUTS)

    assert_same_logits(logits, uninterrupted.logits)
    assert live.position == 300
    assert_same_contents(live.cache, uninterrupted.live.cache)


@all_families
@both_dtypes
@pytest.mark.parametrize("steps", [1, 2])
def test_in_strict_mode_a_warm_prompt_equals_its_cold_run_bit_for_bit(family, dtype, steps):
    driver = tiny_driver(family, dtype)
    grid = steps * driver.alignment
    first = prompt(300, seed=1)
    second = torch.cat([first[:256], prompt(107, seed=2)])
    stored = run_cold(driver, first, grid_cuts(300, grid))
    cuts = grid_cuts(363, grid)
    cold = run_cold(driver, second, cuts)

    for position in (cut for cut in cuts if 0 < cut <= 256):
        for _ in range(2):
            logits, live = resume(stored, position, second, cuts)
            assert_same_logits(logits, cold.logits)
        assert_same_contents(live.cache, cold.live.cache)


@all_families
@pytest.mark.parametrize("position", [128, 165])
@pytest.mark.parametrize("suffix", [(1,), (2, 1), (50, 1), (135,)], ids=str)
def test_a_resumed_request_agrees_with_one_shot_prefill(family, position, suffix):
    driver = tiny_driver(family, torch.float32)
    cuts = (0, 64, 128, 165) if position == 165 else (0, 64, 128)
    for length in suffix:
        cuts += (cuts[-1] + length,)
    tokens = prompt(cuts[-1], seed=3)
    stored = run_cold(driver, tokens, cuts)

    resumed = resume(stored, position, tokens, cuts)[0][cuts[-1]]
    one_shot = driver.advance(driver.start(), tokens)

    assert (resumed - one_shot).abs().max() <= 1e-3
    assert resumed.argmax() == one_shot.argmax()


@all_families
def test_in_bfloat16_a_resumed_request_agrees_with_one_shot_prefill_to_rounding(family):
    driver = tiny_driver(family, torch.bfloat16)
    tokens = prompt(300, seed=3)
    stored = run_cold(driver, tokens, UNEVEN_CUTS)

    resumed = resume(stored, 165, tokens, UNEVEN_CUTS)[0][300]

    assert distance(resumed, driver.advance(driver.start(), tokens)) < 0.1


@all_families
@both_dtypes
def test_a_lost_state_shows(family, dtype):
    tokens, cuts = prompt(131, seed=4), (0, 64, 128, 130, 131)
    stored = run_cold(tiny_driver(family, dtype), tokens, cuts)

    lost = resume(stored, 128, tokens, cuts, lose_state=True)[0][131]

    assert distance(lost, stored.logits[131]) > 0.05


@all_families
@both_dtypes
def test_a_state_resumed_at_the_wrong_position_shows(family, dtype):
    tokens = prompt(131, seed=4)
    stored = run_cold(tiny_driver(family, dtype), tokens, (0, 64, 96, 128, 130, 131))

    too_early = resume(stored, 96, torch.cat([tokens[:96], tokens[128:]]), (96, 98, 99))[0][99]

    assert distance(too_early, stored.logits[131]) > 0.02


@all_families
def test_interleaved_requests_do_not_touch_each_other(family):
    driver = tiny_driver(family, torch.float32)
    cuts = (0, 64, 101, 102, 140)
    alone = [run_cold(driver, prompt(140, seed), cuts) for seed in (5, 6)]

    lives = [driver.start(), driver.start()]
    for start, end in pairwise(cuts):
        for live, run in zip(lives, alone, strict=True):
            assert torch.equal(driver.advance(live, run.tokens[start:end]), run.logits[end])


@all_families
def test_a_snapshot_stays_as_it_is_while_caches_move_on(family):
    driver = tiny_driver(family, torch.float32)
    tokens = prompt(300)
    stored = run_cold(driver, tokens, (0, 64, 128))
    before = [(path, item.clone()) for path, item in _tensors(stored)]

    driver.advance(stored.live, tokens[128:200])
    driver.advance(stored.live, tokens[200:201])
    resume(stored, 128, tokens, (128, 200, 201))

    assert before
    after = list(_tensors(stored))
    assert [path for path, _ in after] == [path for path, _ in before]
    assert all(torch.equal(old, new) for (_, old), (_, new) in zip(before, after, strict=True))


@all_families
def test_a_snapshot_of_a_restored_cache_is_the_snapshot(family):
    stored = run_cold(tiny_driver(family, torch.float32), prompt(165), (0, 64, 128, 165))

    _, live = resume(stored, 165, stored.tokens, (165,))

    again = capture_state(live.cache, 165)
    assert again.num_bytes == stored.snapshots[165].num_bytes
    assert_same_contents(again.frame, stored.snapshots[165].frame)


def _tensors(run):
    for position, snapshot in run.snapshots.items():
        for path, item in contents(snapshot.frame, f"{position}"):
            if isinstance(item, torch.Tensor):
                yield path, item
    for segment in run.segments:
        yield from ((f"{segment.start}{key}", tensor) for key, tensor in segment.tensors.items())
