"""What can be set, as JSON in the environment variable ``MILEPOST_SGLANG``. Nothing needs to be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.errors import ConfigurationError
from milepost.hosted.settings import PATH, at_least, read_settings

__all__ = ["VARIABLE", "Options"]

VARIABLE = "MILEPOST_SGLANG"
_RULES = {"history_tokens": at_least(0), "learned": PATH, "stop_tokens": at_least(0)}
_EXAMPLE = '{"learned": "/var/lib/milepost/lessons.json"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The plugin's settings.

    Attributes:
        history_tokens: Prompt tokens remembered after their KV is gone, to recognise what comes back; thirty
            times what the pool can hold unless given.
        learned: File that what was learned of the traffic is loaded from at start, if it exists, and saved to
            every 256 requests.
        stop_tokens: What one more chunk costs a prompt, in tokens computed: a pass of the model that reads
            all weights and launches all kernels. Not measured, since all ranks of a model must decide alike.
    """

    history_tokens: int | None = None
    learned: Path | None = None
    stop_tokens: int = 1024

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
            raise ConfigurationError(
                f"{VARIABLE}={text!r} is no JSON ({error}); give an object, as in '{_EXAMPLE}'"
            ) from None
        return cls(**read_settings(given, _RULES, where=VARIABLE, example=_EXAMPLE))
