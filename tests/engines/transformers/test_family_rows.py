"""Every family, decoded in rows: what a row computes hangs on its own tokens and the number of rows alone."""

import pytest
import torch
from batching import LENGTHS, NUM_STEPS, ONE_BY_ONE, Stay, alone, answer, computed, decode
from resuming import assert_same_contents, contents, distance, tiny_driver

from families import ALL_FAMILIES
from milepost.engines.transformers.row_probe import measure_rows
from milepost.engines.transformers.rows import BatchedRows
from milepost.engines.transformers.snapshot import capture_state, slice_kv

STACKED_FAMILIES = tuple(family for family in ALL_FAMILIES if family not in ONE_BY_ONE)
# A choice of experts that rounding turns over moves logits far: agreement is tested in float32.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.1}

families = pytest.mark.parametrize("family", STACKED_FAMILIES)
dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "bfloat16"])


def fixed_rows(family, dtype):
    return BatchedRows(tiny_driver(family, dtype), 4, is_fixed=True)


@families
@dtypes
def test_a_row_has_the_same_bits_in_any_company_and_slot_whoever_joins_or_leaves(family, dtype):
    expected = decode(fixed_rows(family, dtype), family, dtype, [Stay(1)])[1]

    for company in (
        [Stay(0), Stay(2), Stay(1)],
        [Stay(0, 0, 2), Stay(1, 1, 5), Stay(2, 3, 6)],
    ):
        assert torch.equal(decode(fixed_rows(family, dtype), family, dtype, company)[1], expected)


@families
@pytest.mark.parametrize("is_fixed", [True, False], ids=["fixed", "free"])
def test_rows_agree_with_one_by_one_and_swapped_ones_do_not(family, is_fixed):
    dtype = torch.float32
    rows = BatchedRows(tiny_driver(family, dtype), 4, is_fixed=is_fixed)

    found = decode(rows, family, dtype, [Stay(0), Stay(1, 1, 5), Stay(2, 0, 3)])

    for index, logits in found.items():
        for row, reference in zip(logits, alone(family, dtype, index), strict=False):
            assert distance(row, reference) < 1e-4
            assert distance(row, alone(family, dtype, (index + 1) % 3)[0]) > 0.1


@families
def test_in_bfloat16_most_rows_stay_within_rounding_of_one_by_one(family):
    dtype = torch.bfloat16
    found = decode(fixed_rows(family, dtype), family, dtype, [Stay(0), Stay(1), Stay(2)])

    distances = [
        distance(row, reference)
        for index, logits in found.items()
        for row, reference in zip(logits, alone(family, dtype, index), strict=True)
    ]
    # A choice of experts that rounding turns over moves a step far, so some may be.
    assert sorted(distances)[len(distances) // 2] < 0.1
    assert distance(found[0][0], found[1][0]) > 0.5


@families
@dtypes
def test_a_row_that_is_kept_goes_on_in_a_cache_of_its_own_as_if_it_had_stayed(family, dtype):
    expected = decode(fixed_rows(family, dtype), family, dtype, [Stay(0), Stay(2)])
    rows = fixed_rows(family, dtype)
    lives = [computed(family, dtype, index) for index in (0, 2)]
    for step in range(2):
        rows.advance(lives, [int(answer(index)[step]) for index in (0, 2)])

    kept = lives[1]
    rows.leave(kept, keeps=True)

    one_by_one = computed(family, dtype, 2)
    tiny_driver(family, dtype).advance(one_by_one, answer(2)[:2])
    assert kept.position == one_by_one.position == LENGTHS[2] + 2
    assert shapes(kept.cache) == shapes(one_by_one.cache), "a cache as the model itself makes it"
    before = capture_state(kept.cache, kept.position), slice_kv(kept.cache, 0, kept.position)
    # Others go on beside it, in its slot too, and leave it as it is.
    rows.advance([lives[0], computed(family, dtype, 1)], [5, 6])
    after = capture_state(kept.cache, kept.position), slice_kv(kept.cache, 0, kept.position)
    assert_same_contents([after[0].frame, after[1].tensors], [before[0].frame, before[1].tensors])
    elsewhere = fixed_rows(family, dtype)
    for step in range(2, NUM_STEPS):
        (row,) = elsewhere.advance([kept], [int(answer(2)[step])])
        assert torch.equal(row, expected[2][step])


def shapes(cache):
    return {
        path: (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value
        for path, value in contents(cache)
    }


@families
@dtypes
def test_the_probe_lets_a_family_through(family, dtype):
    report = measure_rows(tiny_driver(family, dtype), 4, is_fixed=True)

    assert report.refusal is None
    assert report.num_differences == 0
    assert report.alone_distance < report.swapped_distance / 10


@pytest.mark.parametrize(("family", "reason"), ONE_BY_ONE.items())
def test_a_family_that_cannot_be_stacked_is_refused_and_the_reason_said(family, reason):
    report = measure_rows(tiny_driver(family, torch.float32), 4, is_fixed=True)

    assert report.refusal is not None
    assert reason in report.refusal
