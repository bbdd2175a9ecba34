r"""MiniMax: past length is read from layer 0, which keeps none, and several tokens are walked one by one.

Upstream's cache is a list of plain layers that grows as attention layers fill it, with the linear states
beside it. Filled instead with the layers that the configuration names, the inherited methods find the first
attention layer by themselves, and the linear states have a place in it.

Lightning attention is the linear recurrence :math:`S_t = \lambda S_{t-1} + k_t^\top v_t`, :math:`y_t = q_t
S_t`, per head. A block of it is attention inside the block plus the share of the state before the block,
so it works from any state; upstream blocks only from zeros, and walks token by token, in the model's dtype,
after that. Here all segments are blocked, and the state is carried in float32.
"""

from collections.abc import Callable, Iterable
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
    token_axes=dict.fromkeys(("queries", "keys", "values"), -2),
    output_axis=-2,
    initial_state="state",
    asks_for_state=None,
)


def new_cache(model: PreTrainedModel) -> Any:
    """Return upstream's cache, which its model insists on, with a layer of the right kind for every layer."""
    from transformers.models.minimax.modeling_minimax import MiniMaxCache

    untyped: Any = MiniMaxCache
    cache = untyped()
    cache.layers = DynamicCache(config=model.config).layers
    cache.layer_class_to_replicate = None
    return cache


def patches(model: PreTrainedModel) -> Iterable[ForwardPatch]:
    """Yield a patch for every lightning attention of ``model``."""
    layers: Any = model.base_model.layers
    for layer in layers:
        if hasattr(layer.self_attn, "slope_rate"):
            yield ForwardPatch(layer.self_attn, _forward)


def _forward(
    upstream: Callable[..., Any],
    attention: Any,
    hidden_states: torch.Tensor,
    *,
    attention_mask: torch.Tensor | None = None,
    **options: Any,
) -> Any:
    cache = cache_among(options)
    layers = [] if cache is None else cache.layers
    index = attention.layer_idx
    if index >= len(layers) or not isinstance(layers[index], LinearAttentionLayer):
        return upstream(hidden_states, attention_mask=attention_mask, **options)
    projected = attention.act_fn(attention.qkv_proj(hidden_states))
    if attention_mask is not None:
        projected = projected * attention_mask[..., None].to(projected.dtype)
    heads = projected.unflatten(-1, (attention.num_attention_heads, 3 * attention.head_dim)).transpose(1, 2)
    blocked = in_pieces(_blocked, _RECURRENCE)
    outputs, state = blocked(attention, *heads.chunk(3, dim=-1), state=layers[index].recurrent_states[0])
    cache.update_recurrent_state(state, index)
    outputs = attention.norm(outputs.transpose(1, 2).flatten(-2).to(hidden_states.dtype))
    gate = functional.sigmoid(attention.output_gate(hidden_states))
    return attention.out_proj(gate * outputs), state


def _blocked(
    attention: Any,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs [batch, heads, tokens, dim] and the state [batch, heads, dim, dim] after them."""
    if state is None:
        state = queries.new_zeros(*queries.shape[:2], keys.shape[-1], values.shape[-1], dtype=torch.float32)
    outputs = []
    size = attention.block_size
    for start in range(0, queries.shape[-2], size):
        query, key, value = (heads[..., start : start + size, :] for heads in (queries, keys, values))
        length = query.shape[-2]
        inside = (query @ key.mT) * attention.diagonal_decay[0, :, :length, :length]
        before = (query * attention.query_decay[:, :length]).float() @ state
        outputs.append((inside @ value).float() + before)
        added = (key * attention.key_decay[:, -length:]).mT.float() @ value.float()
        state = state * torch.exp(-attention.slope_rate.float() * length) + added
    return torch.cat(outputs, dim=-2), state
