"""Settings that an engine hands to a plugin: checked strictly, so that none is misspelt in silence."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.errors import ConfigurationError

__all__ = ["FLAG", "PATH", "Rule", "at_least", "read_settings"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting may be.

    Attributes:
        text: The rule, as messages give it.
        is_kept_by: Whether a value keeps it.
        meaning: What a value is to the plugin.
    """

    text: str
    is_kept_by: Callable[[Any], bool]
    meaning: Callable[[Any], Any] = lambda value: value


#: A switch.
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
#: A file.
PATH = Rule("a path", lambda value: isinstance(value, str), lambda value: Path(value).expanduser())


def at_least(least: int) -> Rule:
    """Return the rule of a count."""
    return Rule(
        f"a whole number of at least {least}",
        # A bool is an int to Python, not to a reader of a configuration.
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def read_settings(given: Any, rules: Mapping[str, Rule], *, where: str, example: str) -> dict[str, Any]:
    """Return the settings that are given, by name.

    Args:
        given: What stands in the configuration; an object, if it is right.
        rules: Of all the settings there are.
        where: Where it stands, for messages.
        example: An object that would be right, for messages.

    Raises:
        ConfigurationError: it is no object, a setting is unknown, or one breaks its rule.

    >>> read_settings({"quick": True}, {"quick": FLAG}, where="config", example='{"quick": true}')
    {'quick': True}
    """
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{where} is {given!r}; give an object, as in '{example}'")
    for name, value in given.items():
        if name not in rules:
            raise ConfigurationError(f"{where} has {name!r}; known are {', '.join(sorted(rules))}")
        if not rules[name].is_kept_by(value):
            raise ConfigurationError(f"{where}[{name!r}] is {value!r}; give {rules[name].text}")
    return {name: rules[name].meaning(value) for name, value in given.items()}
