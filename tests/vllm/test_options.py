"""Settings are checked strictly: a value that cannot be meant is named with its rule."""

from pathlib import Path

import pytest

from milepost.errors import ConfigurationError
from milepost.vllm.options import Options


@pytest.mark.parametrize("given", [None, {}, {"milepost": {}}, {"another": {"max_stops": "x"}}])
def test_nothing_needs_setting(given):
    assert Options.read(given) == Options()


def test_what_is_given_is_taken(tmp_path):
    given = {"enabled": False, "max_stops": 2, "stop_tokens": 64, "history_tokens": 0}
    options = Options.read({"milepost": given | {"learned": str(tmp_path / "learned")}})
    assert options == Options(**given, learned=tmp_path / "learned")


def test_a_home_is_found():
    assert Options.read({"milepost": {"learned": "~/learned"}}).learned == Path.home() / "learned"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("enabled", 1, "true or false"),
        ("enabled", "yes", "true or false"),
        ("enabled", None, "true or false"),
        ("max_stops", 0, "a whole number of at least 1"),
        ("max_stops", True, "a whole number of at least 1"),
        ("max_stops", 2.0, "a whole number of at least 1"),
        ("max_stops", "4", "a whole number of at least 1"),
        ("stop_tokens", -1, "a whole number of at least 0"),
        ("history_tokens", -1, "a whole number of at least 0"),
        ("history_tokens", None, "a whole number of at least 0"),
        ("resumable_events", "no", "true or false"),
        ("state_events", 0, "true or false"),
        ("learned", 5, "a path"),
        ("learned", ["x"], "a path"),
    ],
)
def test_a_bad_value_is_named_with_its_rule(name, value, rule):
    with pytest.raises(ConfigurationError) as caught:
        Options.read({"milepost": {name: value}})
    assert f"['{name}'] is {value!r}; give {rule}" in str(caught.value)


def test_a_misspelt_setting_is_named_with_those_there_are():
    with pytest.raises(ConfigurationError, match=r"has 'max_stop'; known are enabled, .*max_stops"):
        Options.read({"milepost": {"max_stop": 4}})


@pytest.mark.parametrize("given", [True, "on", 4, ["enabled"]])
def test_settings_are_an_object(given):
    with pytest.raises(ConfigurationError, match="give an object"):
        Options.read({"milepost": given})


def test_states_cannot_be_left_out_of_events_that_are_published_as_vllm_does():
    both = {"state_events": False, "resumable_events": False}
    with pytest.raises(ConfigurationError, match="leave 'resumable_events' out"):
        Options.read({"milepost": both})
    assert not Options.read({"milepost": {"state_events": False}}).state_events
