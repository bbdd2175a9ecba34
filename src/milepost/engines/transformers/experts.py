"""Mixtures of experts that look at one token at a time.

Upstream's two usual ways group the tokens of a call by expert, so how many rows an expert's matrices meet
depends on what the other tokens chose, and in float32 the kernel does too. The third, a product of its own
for each token and expert, does not; it copies the weights of every choice, so it suits single tokens alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

__all__ = ["UngroupedExperts"]

_GROUPED = frozenset({"eager", "grouped_mm"})
_UNGROUPED = "batched_mm"


class UngroupedExperts:
    """The experts of one model, to be ungrouped for single calls. O(modules) to make."""

    def __init__(self, model: PreTrainedModel) -> None:
        configs = {
            id(module.config): module.config
            for module in model.modules()
            # What upstream's decorator puts on modules that it dispatches.
            if hasattr(module, "_is_expert_parallel")
        }
        self._configs: list[Any] = list(configs.values())

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, experts that would group their tokens do not."""
        changed = [
            (config, config._experts_implementation)
            for config in self._configs
            if config._experts_implementation in _GROUPED
        ]
        try:
            for config, _ in changed:
                config._experts_implementation = _UNGROUPED
            yield
        finally:
            for config, implementation in changed:
                config._experts_implementation = implementation
