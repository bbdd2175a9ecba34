"""rwkv: a single token of several sequences mixes each with the last token of all.

Upstream takes the last hidden states [sequences, width] beside the new ones [sequences, 1, width] as they
are, which is right for one sequence alone. Here they are shown with the axis that is missing.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from milepost.engines.transformers.patch import ForwardPatch

__all__ = ["patches"]

# Where a list of states has the last hidden states of each kind of module.
_FEED_FORWARD_STATE, _ATTENTION_STATE = 0, 1


def patches(model: PreTrainedModel) -> Iterable[ForwardPatch]:
    """Yield two patches for every block of ``model``."""
    blocks: Any = model.base_model.blocks
    for block in blocks:
        yield ForwardPatch(block.attention, partial(_forward, _ATTENTION_STATE))
        yield ForwardPatch(block.feed_forward, partial(_forward, _FEED_FORWARD_STATE))


class _WithTokenAxis:
    """A tensor [sequences, width, layers] whose layers are read as [sequences, 1, width]."""

    def __init__(self, states: torch.Tensor) -> None:
        self._states = states

    def __getitem__(self, key: Any) -> torch.Tensor:
        return self._states[key].unsqueeze(1)

    def __setitem__(self, key: Any, value: torch.Tensor) -> None:
        self._states[key] = value


def _forward(
    index: int,
    upstream: Callable[..., Any],
    module: torch.nn.Module,
    hidden: torch.Tensor,
    state: list[Any] | None = None,
    **options: Any,
) -> Any:
    if state is None or hidden.shape[0] == 1 or hidden.shape[1] > 1:
        return upstream(hidden, state=state, **options)
    shown = list(state)
    shown[index] = _WithTokenAxis(state[index])
    # Both write into the states in place.
    outputs, _ = upstream(hidden, state=shown, **options)
    return outputs, state
