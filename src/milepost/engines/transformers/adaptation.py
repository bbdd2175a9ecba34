"""What one family needs beyond the generic driver; ``families`` holds the table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from transformers import DynamicCache, PreTrainedModel

from milepost.engines.transformers.patch import ForwardPatch

__all__ = ["Adaptation"]


def _dynamic_cache(model: PreTrainedModel) -> Any:
    return DynamicCache(config=model.config)


def _no_patches(_: PreTrainedModel) -> Iterable[ForwardPatch]:
    return ()


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What a family needs beyond the generic driver.

    Attributes:
        new_cache: Makes the empty cache of one request; it may return None where the model makes its own.
        patches: Replacements that make the family continue from its state, for one model instance.
        has_context_limit: False where the configuration's length binds training only.
        starts_over: Whether ``generate`` computes everything anew where an answer outgrows the original
            context, since the positions of all its tokens change.
        reason_against_loops: Why ``generate`` cannot go on from a cache of this family, where it cannot.
        reason_against_rows: Why sequences of different lengths cannot be advanced in one call, where that is
            known; else it is measured (``row_probe``).
    """

    new_cache: Callable[[PreTrainedModel], Any] = _dynamic_cache
    patches: Callable[[PreTrainedModel], Iterable[ForwardPatch]] = _no_patches
    has_context_limit: bool = True
    starts_over: bool = False
    reason_against_rows: str | None = None
    reason_against_loops: str | None = None
