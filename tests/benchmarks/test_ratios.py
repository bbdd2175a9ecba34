"""Rows of two ways that took turns."""

import pytest
from benchmarks.ratios import ratio_row


def test_turns_are_compared_within_themselves():
    # The second turn was slow for both: medians over turns would say 2 / 4.
    row = ratio_row("one / other", [2.0, 9.0, 1.0], [4.0, 9.0, 1.0])
    assert row.numbers == {"ratio": 1.0, "seconds": 2.0, "base_seconds": 4.0}
    assert row.measured == "1.000 (0.500 to 1.000)"
    assert (row.target, row.reached) == ("reported", True)


def test_a_target_is_the_most_that_the_ratio_may_be():
    reached, missed = (ratio_row("one / other", [most], [1.0], target=1.02).reached for most in (1.02, 1.03))
    assert reached
    assert not missed


def test_more_numbers_stand_beside_the_ratio():
    row = ratio_row("one / other", [1.0], [2.0], note="; FLOPs 0.5", numbers={"saved": 0.3})
    assert (row.numbers["ratio"], row.numbers["saved"]) == (0.5, 0.3)
    assert row.measured.endswith("; FLOPs 0.5")


def test_ways_with_other_turns_are_not_compared():
    with pytest.raises(ValueError, match="shorter"):
        ratio_row("one / other", [1.0, 2.0], [1.0])
