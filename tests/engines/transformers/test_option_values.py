"""Values of options: whatever plainly means the right thing is taken, and nothing else."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from milepost.engines.transformers.option_values import (
    finite_number,
    text_value,
    texts,
    truth,
    whole_number,
)
from milepost.errors import InvalidRequestError


@pytest.mark.parametrize(
    "value",
    [5, 5.0, np.int64(5), np.uint8(5), np.float32(5), torch.tensor(5), np.array(5)],
)
def test_what_is_plainly_a_whole_number_is_one(value):
    number = whole_number("top_k", value, least=1, most=5)
    assert (number, type(number)) == (5, int)


@pytest.mark.parametrize(
    "value", [5.5, "5", True, np.True_, None, [5], np.array([5]), float("nan"), float("inf"), b"5", 0, 9, -1]
)
def test_what_is_not_is_refused_with_the_rule(value):
    with pytest.raises(InvalidRequestError, match=r"top_k=.*; give a whole number, 1 to 8"):
        whole_number("top_k", value, least=1, most=8)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2), torch.tensor(0.5), np.array(0.5)]
)
def test_what_is_plainly_a_number_is_one(value):
    number = finite_number("temperature", value, rule="0 to 2", least=0.0, most=2.0)
    assert (number, type(number)) == (0.5, float)


@pytest.mark.parametrize(
    "value", ["0.5", True, np.False_, None, [0.5], float("nan"), float("inf"), 1j, -0.1, 2.1, 10**400]
)
def test_what_is_no_number_is_refused_with_the_rule(value):
    with pytest.raises(InvalidRequestError, match=r"temperature=.*; give a number, 0 to 2"):
        finite_number("temperature", value, rule="0 to 2", least=0.0, most=2.0)


def test_truths_and_texts_are_what_they_are():
    assert truth("ignore_end_token", np.True_) is True
    assert text_value("tenant", "a") == "a"
    assert texts("stop", "a") == ("a",)
    assert texts("stop", ["a", "b"]) == ("a", "b")
    for check, value in ((truth, 1), (truth, "yes"), (text_value, 5), (texts, 5), (texts, b"a")):
        with pytest.raises(InvalidRequestError, match="; give"):
            check("option", value)
