"""What can be set, through ``--additional-config '{"milepost": {...}}'``. Nothing needs to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milepost.errors import ConfigurationError
from milepost.hosted.settings import FLAG, PATH, at_least, read_settings

__all__ = ["Options"]

_KEY = "milepost"
_RULES = {
    "enabled": FLAG,
    "max_stops": at_least(1),
    "stop_tokens": at_least(0),
    "history_tokens": at_least(0),
    "resumable_events": FLAG,
    "state_events": FLAG,
    "learned": PATH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The plugin's settings.

    Attributes:
        enabled: False runs stock vLLM.
        max_stops: Most prefill chunks of one request that end early for a checkpoint where vLLM by itself
            would not: the bound on extra steps.
        stop_tokens: What such a chunk costs, in tokens computed: a checkpoint that is not expected to save
            more is not placed. Learned from the steps unless given.
        history_tokens: Prompt tokens remembered after their blocks are gone, to recognise what comes back;
            thirty times what the pool can hold unless given.
        resumable_events: KV events tell of attention blocks only as long as a request can resume from them;
            False publishes them as vLLM does.
        state_events: Events of recurrent states are published beside those of attention; False leaves them
            out and counts the groups of attention from 0, for routers that follow group 0 alone.
        learned: File that what was learned of the traffic is loaded from at start, if it exists, and saved to
            at shutdown.
    """

    enabled: bool = True
    max_stops: int = 4
    stop_tokens: int | None = None
    history_tokens: int | None = None
    resumable_events: bool = True
    state_events: bool = True
    learned: Path | None = None

    @classmethod
    def read(cls, additional_config: Mapping[str, Any] | None) -> "Options":
        """Return the settings that ``additional_config`` names.

        Raises:
            ConfigurationError: a setting is unknown, or breaks its rule.

        >>> Options.read({"milepost": {"max_stops": 2}}).max_stops
        2
        """
        options = read_settings(
            (additional_config or {}).get(_KEY, {}),
            _RULES,
            where=f"additional_config[{_KEY!r}]",
            example='{"milepost": {"max_stops": 4}}',
        )
        if not options.get("state_events", True) and not options.get("resumable_events", True):
            raise ConfigurationError(
                f"additional_config[{_KEY!r}] has 'state_events': false and 'resumable_events': false; "
                "events are left out only of those that are looked at: leave 'resumable_events' out"
            )
        return cls(**options)
