"""The mean number of returns to a prompt."""

import pytest

from milepost.reuse import ReturnRates


def rates(*, prompts=0, returns=0, of_class=0, num_classes=3):
    table = ReturnRates(num_classes)
    for _ in range(prompts):
        table.note_prompt(of_class)
    for _ in range(returns):
        table.note_return(of_class)
    return table


def test_before_any_prompt_one_return_is_expected():
    assert [rates().expected(each) for each in range(3)] == [1.0] * 3


def test_prompts_that_nobody_returns_to_are_expected_to_stay_alone():
    expected = [rates(prompts=num).expected(0) for num in range(100)]
    assert expected == sorted(expected, reverse=True)
    assert 0.0 < expected[-1] < 0.01


def test_the_mean_is_met_in_the_end():
    assert rates(prompts=800, returns=2000).expected(0) == pytest.approx(2.5, rel=0.02)


def test_a_class_with_no_evidence_borrows_from_all():
    table = rates(prompts=800, returns=80)
    assert table.expected(1) == pytest.approx(0.1, rel=0.1)
    for _ in range(100):
        table.note_prompt(1)
        table.note_return(1)
    assert table.expected(0) == pytest.approx(0.1, rel=0.1)
    assert table.expected(1) > 0.9


def test_what_has_changed_is_learned_in_a_thousand_prompts_however_long_it_was_so():
    table = rates(prompts=100_000)
    for _ in range(1500):
        table.note_prompt(0)
        table.note_return(0)
    assert table.expected(0) > 0.6


def test_a_copy_expects_the_same():
    table = rates(prompts=30, returns=7, of_class=2)
    copy = ReturnRates(3)
    copy.restore(table.export())
    assert [copy.expected(each) for each in range(3)] == [table.expected(each) for each in range(3)]


@pytest.mark.parametrize("bad", [[1.0] * 3, [1.0, 1.0, 1.0, -1.0], [1.0, 1.0, 1.0, float("inf")]])
@pytest.mark.parametrize("part", ["prompts", "returns"])
def test_counts_that_cannot_be_are_refused(part, bad):
    with pytest.raises(ValueError, match=r"."):
        ReturnRates(3).restore(rates().export() | {part: bad})
