"""Settings are checked strictly: a value that cannot be meant is named with its rule."""

from pathlib import Path

import pytest

from milepost.errors import ConfigurationError
from milepost.sglang.options import VARIABLE, Options


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}, {VARIABLE: "  "}, {VARIABLE: "{}"}])
def test_nothing_needs_setting(environment):
    assert Options.read(environment) == Options()


def test_what_is_given_is_taken():
    given = '{"history_tokens": 0, "learned": "~/lessons"}'
    assert Options.read({VARIABLE: given}) == Options(history_tokens=0, learned=Path.home() / "lessons")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "give an object"),
        ('{"learnt": "x"}', "known are history_tokens, learned"),
        ('{"learned": 5}', "give a path"),
        ('{"history_tokens": -1}', "a whole number of at least 0"),
        ('{"history_tokens": true}', "a whole number of at least 0"),
        ('{"history_tokens": 1.5}', "a whole number of at least 0"),
        ('{"history_tokens": null}', "a whole number of at least 0"),
    ],
)
def test_what_breaks_a_rule_is_named(text, says):
    with pytest.raises(ConfigurationError, match=says):
        Options.read({VARIABLE: text})
