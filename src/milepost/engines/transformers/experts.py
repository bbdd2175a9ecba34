"""Mixtures of experts that look at one token at a time.

Upstream groups the tokens of a call by expert, so how many rows an expert's matrices meet depends on what the
other tokens chose, and in float32 the kernel does too. Called with one token after another, an expert meets
the rows that it meets in a sequence alone. (The way upstream has for this, ``batched_mm``, copies the weights
of every choice: the whole step takes three times as long on a CPU.)
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from milepost.engines.transformers.patch import ForwardPatch

__all__ = ["UngroupedExperts"]


class UngroupedExperts:
    """The experts of one model, to be ungrouped for single calls. O(modules) to make."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._patches = [
            ForwardPatch(module, _token_by_token)
            for module in model.modules()
            # What upstream's decorator puts on modules of experts.
            if hasattr(module, "_is_expert_parallel")
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, experts are called with one token at a time."""
        with ExitStack() as stack:
            for patch in self._patches:
                if patch.apply():
                    stack.callback(patch.undo)
            yield


def _token_by_token(
    upstream: Callable[..., torch.Tensor],
    _: torch.nn.Module,
    hidden_states: torch.Tensor,
    *routing: torch.Tensor,
    **named_routing: Any,
) -> torch.Tensor:
    """Call ``upstream`` with each token's hidden state [1, width] and what was chosen for it."""
    return torch.cat(
        [
            upstream(
                hidden_states[index : index + 1],
                *(each[index : index + 1] for each in routing),
                **{name: each[index : index + 1] for name, each in named_routing.items()},
            )
            for index in range(hidden_states.shape[0])
        ]
    )
