"""Settings of a plugin: what is misspelt, or breaks its rule, is named where it stands."""

from pathlib import Path

import pytest

from milepost.errors import ConfigurationError
from milepost.hosted.settings import FLAG, PATH, at_least, read_settings

RULES = {"quick": FLAG, "folder": PATH, "most": at_least(2)}


def read(given):
    return read_settings(given, RULES, where="config", example='{"quick": true}')


def test_what_is_given_is_returned_and_nothing_else():
    assert read({}) == {}
    assert read({"most": 2, "quick": False}) == {"most": 2, "quick": False}


def test_a_path_may_begin_at_home():
    assert read({"folder": "~/here"}) == {"folder": Path.home() / "here"}


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("quick", 1, "true or false"),
        ("quick", None, "true or false"),
        ("folder", 5, "a path"),
        ("folder", None, "a path"),
        ("most", 1, "a whole number of at least 2"),
        ("most", True, "a whole number of at least 2"),
        ("most", 2.0, "a whole number of at least 2"),
        ("most", "2", "a whole number of at least 2"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named_with_it(name, value, rule):
    with pytest.raises(ConfigurationError) as caught:
        read({name: value})
    assert str(caught.value) == f"config[{name!r}] is {value!r}; give {rule}"


@pytest.mark.parametrize("name", ["quikc", "", "Quick", 1])
def test_what_is_unknown_is_named_with_what_is_known(name):
    with pytest.raises(ConfigurationError, match="known are folder, most, quick"):
        read({name: True})


@pytest.mark.parametrize("given", [None, [], "quick", 1, True])
def test_settings_are_an_object(given):
    with pytest.raises(ConfigurationError, match="give an object"):
        read(given)
