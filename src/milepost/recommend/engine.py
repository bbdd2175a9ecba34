"""What an engine offers to set, and how the best setting is set.

An engine is modelled by the policy that it runs, at the positions that it can keep states at, with the
memory that a state takes in it. A :class:`Candidate` is one setting in those terms; the replay finds out
what it is worth.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from milepost.footprint import Footprint
from milepost.recommend.profile import TrafficProfile
from milepost.recommend.situation import Situation

__all__ = ["Candidate", "EngineKind", "Instructions", "SettingValue", "command_line"]

SettingValue: TypeAlias = int | float | str | bool | tuple[int, ...]
_NO_SETTINGS: Mapping[str, SettingValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One setting of an engine.

    Attributes:
        policy: Notation of the policy that the engine runs under this setting.
        grid: Positions that it can keep states at.
        footprint: What a state takes in this engine.
        segment_tokens: KV is kept in whole segments of this many tokens; the grid unless given.
        max_checkpoints: Most states that are placed on one prompt.
        capture_tokens: What capturing one costs, in tokens computed.
        settings: What would be set, by the engine's own names.
    """

    policy: str
    grid: int
    footprint: Footprint
    segment_tokens: int | None = None
    max_checkpoints: int | None = None
    capture_tokens: int = 0
    settings: Mapping[str, SettingValue] = field(default_factory=lambda: _NO_SETTINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """What to do, to copy.

    Attributes:
        commands: Command lines.
        files: Names and contents of files that they need.
        notes: What else to know: what the model of the engine leaves out, and which version has the flags.
    """

    commands: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKind:
    """One engine.

    Attributes:
        title: Its name, for people.
        candidates: Its settings worth trying, the simplest first; none where the log does not tell what the
            engine goes by.
        instructions: How the best of them is set; how it is set at all, where none could be tried.
        families: The ``model_type`` of each family that it serves, among those with a footprint formula; None
            for all.
    """

    title: str
    candidates: Callable[[Situation, TrafficProfile], Iterable[Candidate]]
    instructions: Callable[[Situation, Candidate | None], Instructions]
    families: frozenset[str] | None = None

    def serves(self, situation: Situation) -> bool:
        """Return whether it serves the model, as far as that is known."""
        family = situation.family
        return self.families is None or family is None or family.model_type in self.families


def command_line(*words: object) -> str:
    """Return ``words`` as one line for a shell, those that are None left out.

    >>> command_line("vllm", "serve", "a model", "--block-size", 528, None)
    "vllm serve 'a model' --block-size 528"
    """
    return shlex.join(str(word) for word in words if word is not None)
