"""A cache policy: placement and eviction as one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from milepost.counts import as_number
from milepost.errors import ConfigurationError
from milepost.placement import PlacementPolicy
from milepost.store import EvictionPolicy, InsertResult, Recency

__all__ = ["CachePolicy", "ForeseenRequest", "Lessons", "PromptRecord", "ReplayPrompts"]


class ForeseenRequest(Protocol):
    """What a policy that knows the future is told of each request, as in a trace."""

    @property
    def keys(self) -> npt.NDArray[np.int64]:
        """The prompt, one key per ``key_tokens`` tokens."""

    @property
    def key_tokens(self) -> int:
        """Tokens per key."""

    @property
    def num_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def tenant(self) -> str:
        """Whose it is."""


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """A prompt that was served, to be replayed.

    Attributes:
        keys: Its whole keys, as the bytes of the tree's edges.
        num_tokens: Its length.
        tenant: Stands for whose it is.
    """

    keys: bytes
    num_tokens: int
    tenant: object

    @classmethod
    def of(cls, inserted: InsertResult) -> Self:
        """Return the record of a prompt that has just been served. O(keys)."""
        path = inserted.path
        tenant = path[0].parent if path else None
        return cls(b"".join(node.data for node in path), inserted.prompt.num_tokens, tenant)


# Serves prompts under another policy on an empty cache of the same make; returns how many tokens were reused.
ReplayPrompts: TypeAlias = "Callable[[CachePolicy, Sequence[PromptRecord]], int]"


class Lessons(Protocol):
    """What a policy learns of the traffic, and can start from in another process."""

    def export(self) -> dict[str, Any]:
        """Return it as plain numbers in lists and objects: no prompt, and nothing of one."""

    def restore(self, exported: dict[str, Any]) -> None:
        """Take over what :meth:`export` gave, before the first request."""

    def merge(self, exports: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one export of several that were learned in caches of one layout. Changes nothing."""

    @property
    def layouts(self) -> tuple[tuple[int, int], ...]:
        """The layouts that it was learned in, as :meth:`note_layout` was told of them."""

    def note_layout(self, *, grid_tokens: int, checkpoint_bytes: int) -> None:
        """Note how the cache is laid out that this is learned in from now on."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Where checkpoints are placed, and which goes first when memory is needed.

    A policy learns from one cache: give each cache its own.

    Attributes:
        placement: Where checkpoints are placed.
        eviction: Which goes first; the least recently used unless given.
        keeps_kv: Whether KV is kept to the end of each prompt, though no state needs it there, as engines do
            whose KV cache knows nothing of states.
        state_share: Share of the budget that only states may take, and KV only the rest; None for one budget.
        prepare: For a policy that knows the future: to be called, before the first request is served, with
            all of them in the order of service. None for the others.
        attach: For a policy that tunes itself: called by its cache with what replays prompts on an empty
            cache of the same make. None for the others.
        lessons: What it learns. None where nothing of it could be kept.
    """

    placement: PlacementPolicy
    eviction: EvictionPolicy = field(default_factory=Recency)
    keeps_kv: bool = False
    state_share: float | None = None
    prepare: Callable[[Sequence[ForeseenRequest]], None] | None = None
    attach: Callable[[ReplayPrompts], None] | None = None
    lessons: Lessons | None = None

    def __post_init__(self) -> None:
        for name, kind in (("placement", PlacementPolicy), ("eviction", EvictionPolicy), ("keeps_kv", bool)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r}; give an instance of {kind.__name__}, or have "
                    "parse_policy make the whole policy"
                )
        if self.state_share is not None:
            as_number("state_share", self.state_share)
        if self.state_share is not None and not 0.0 < self.state_share < 1.0:
            raise ConfigurationError(
                f"state_share={self.state_share}; give a share above 0 and below 1, or none"
            )
