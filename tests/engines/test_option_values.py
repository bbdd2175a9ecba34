"""Options that are truths or texts: whatever plainly means the right thing is taken, and nothing else."""

import numpy as np
import pytest

from milepost.engines.option_values import text_value, texts, truth
from milepost.errors import InvalidRequestError


def test_truths_and_texts_are_what_they_are():
    assert truth("ignore_end_token", np.True_) is True
    assert text_value("tenant", "a") == "a"
    assert texts("stop", "a") == ("a",)
    assert texts("stop", ["a", "b"]) == ("a", "b")


@pytest.mark.parametrize(
    ("check", "value"), [(truth, 1), (truth, "yes"), (text_value, 5), (texts, 5), (texts, b"a")]
)
def test_what_is_neither_is_refused_with_the_rule(check, value):
    with pytest.raises(InvalidRequestError, match=r"option=.*; give"):
        check("option", value)
