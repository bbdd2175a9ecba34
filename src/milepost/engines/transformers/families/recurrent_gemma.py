"""RecurrentGemma: state lives on the modules, and several tokens drop the convolution's context.

The cache gets a linear-attention layer for every recurrent block (recent versions have one there and leave
it empty), and the patch keeps the block's two states in it: then each request has its own, and snapshots see
them. Calls without such a cache take upstream's path.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionLayer

from milepost.engines.transformers.cache_argument import cache_among
from milepost.engines.transformers.inside.recurrences import Recurrence, in_pieces
from milepost.engines.transformers.patch import ForwardPatch

__all__ = ["new_cache", "patches"]

_RECURRENCE = Recurrence(
    token_axes={"activations": 1, "position_ids": 1},
    output_axis=1,
    initial_state="state",
    asks_for_state=None,
)


def new_cache(model: PreTrainedModel) -> Any:
    """Return upstream's cache with room for the states of recurrent blocks."""
    cache = DynamicCache(config=model.config)
    for index, _ in _recurrent_blocks(model):
        cache.layers[index] = LinearAttentionLayer()
    return cache


def patches(model: PreTrainedModel) -> Iterable[ForwardPatch]:
    """Yield a patch for every recurrent block of ``model``."""
    for index, block in _recurrent_blocks(model):
        yield ForwardPatch(block, partial(_forward, index))


def _recurrent_blocks(model: PreTrainedModel) -> Iterator[tuple[int, torch.nn.Module]]:
    layers: Any = model.base_model.layers
    for index, layer in enumerate(layers):
        if hasattr(layer.temporal_block, "rg_lru"):
            yield index, layer.temporal_block


def _forward(
    layer_index: int,
    upstream: Callable[..., Any],
    block: Any,
    input_states: torch.Tensor,
    *,
    position_ids: torch.Tensor,
    **options: Any,
) -> Any:
    cache = cache_among(options)
    layer = None if cache is None else cache.layers[layer_index]
    if not isinstance(layer, LinearAttentionLayer):
        return upstream(input_states, position_ids=position_ids, **options)
    branch = _convolve(block, block.linear_x(input_states).transpose(1, 2), cache, layer_index)
    recur = in_pieces(_recur, _RECURRENCE)
    branch, recurrent_state = recur(
        block.rg_lru, branch.transpose(1, 2), position_ids, layer.recurrent_states[0]
    )
    cache.update_recurrent_state(recurrent_state, layer_index)
    return block.linear_out(branch * block.act_fn(block.linear_y(input_states))), None


def _convolve(block: Any, inputs: torch.Tensor, cache: Any, layer_index: int) -> torch.Tensor:
    """Convolve ``inputs`` [batch, width, tokens] after the ones the cache remembers, or after zeros."""
    context = block.conv1d_width - 1
    num_tokens = inputs.shape[-1]
    inputs = cache.update_conv_state(inputs, layer_index, conv_kernel_size=context)
    inputs = functional.pad(inputs, (context + num_tokens - inputs.shape[-1], 0))
    convolution = block.conv_1d
    return functional.conv1d(inputs, convolution.weight, convolution.bias, groups=convolution.groups)


def _recur(
    unit: Any, activations: torch.Tensor, position_ids: torch.Tensor, state: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the recurrent unit from ``state``, leaving what it had in its own hands as it was."""
    before = unit.recurrent_states
    # The unit scales its state in float32 whatever the model's type, from zeros where there is none.
    unit.recurrent_states = (
        state
        if state is not None
        else activations.new_zeros(activations.shape[0], activations.shape[-1], dtype=torch.float32)
    )
    try:
        outputs = unit(activations, position_ids)
        return outputs, unit.recurrent_states
    finally:
        unit.recurrent_states = before
