"""What can be set, as JSON in the environment variable ``MILEPOST_SGLANG``. Nothing needs to be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.errors import ConfigurationError

__all__ = ["VARIABLE", "Options"]

VARIABLE = "MILEPOST_SGLANG"
_RULES = {"history_tokens": "a whole number of at least 0", "learned": "a path"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The plugin's settings.

    Attributes:
        history_tokens: Prompt tokens remembered after their KV is gone, to recognise what comes back; thirty
            times what the pool can hold unless given.
        learned: File that what was learned of the traffic is loaded from at start, if it exists, and saved to
            every 256 requests.
    """

    history_tokens: int | None = None
    learned: Path | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Options":
        """Return the settings that the environment names.

        Raises:
            ConfigurationError: a setting is unknown, or breaks its rule.

        >>> Options.read({"MILEPOST_SGLANG": '{"history_tokens": 4096}'}).history_tokens
        4096
        """
        text = environment.get(VARIABLE, "")
        if not text.strip():
            return cls()
        try:
            given: Any = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"{VARIABLE}={text!r} is no JSON ({error}); {_EXAMPLE}") from None
        if not isinstance(given, dict):
            raise ConfigurationError(f"{VARIABLE}={text!r} is no object; {_EXAMPLE}")
        for name, value in given.items():
            if name not in _RULES:
                raise ConfigurationError(f"{VARIABLE} has {name!r}; known are {', '.join(sorted(_RULES))}")
            if name == "learned":
                is_good = isinstance(value, str)
            else:
                # A bool is an int to Python, not to a reader of a configuration.
                is_good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not is_good:
                raise ConfigurationError(f"{VARIABLE}: {name} is {value!r}; give {_RULES[name]}")
        learned = given.get("learned")
        return cls(
            history_tokens=given.get("history_tokens"),
            learned=None if learned is None else Path(learned).expanduser(),
        )


_EXAMPLE = """give an object, as in '{"learned": "/var/lib/milepost/lessons.json"}'"""
