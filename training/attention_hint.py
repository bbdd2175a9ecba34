"""A hint for the attention layer: where to look for the next token of an answer.

Left alone, a model this small first learns to keep what it will be asked in its recurrent states, which hold
some dozens of notes; it takes millions of tokens more to find out that attention could copy from any place in
the text. So for the tokens of answers the attention is told where that is: wherever the same three tokens
stand, and the next one after them. The hint is a loss; the model needs no hint once it is trained.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Qwen3_5ForCausalLM
from transformers.models.qwen3_5.modeling_qwen3_5 import apply_rotary_pos_emb

__all__ = ["AttentionHint", "attention_hint"]

_CONTEXT = 3
_MOST_PLACES = 512


class AttentionHint:
    """Watches the input of the one layer of full attention."""

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def note(self, layer: torch.nn.Module, _: Any, inputs: dict[str, Any]) -> None:
        """Keep what the layer is given; a forward pre-hook."""
        self._seen = {"layer": layer, **inputs}

    def loss(self, tokens: torch.Tensor, is_answer: torch.Tensor) -> torch.Tensor:
        """Return the mean over answer tokens of how far the attention before them is from where they stand.

        Minus the log of the weight on all the right places, in the best of the heads.

        Args:
            tokens: Shape ``[num_sequences, length]``.
            is_answer: Which of them are to be copied; the same shape.
        """
        scores = self._scores()
        losses = [_row_loss(scores, row, tokens[row], is_answer[row]) for row in range(tokens.shape[0])]
        found = torch.cat(losses)
        return found.mean() if found.numel() else tokens.new_zeros((), dtype=torch.float32)

    def _scores(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        layer, hidden = self._seen["layer"], self._seen["hidden_states"]
        shape = (*hidden.shape[:-1], -1, layer.head_dim)
        with torch.autocast("cpu", torch.bfloat16):
            query, _ = torch.chunk(layer.q_proj(hidden).view(*shape[:-1], layer.head_dim * 2), 2, dim=-1)
            key = layer.k_proj(hidden)
        query = layer.q_norm(query.view(shape).float()).transpose(1, 2)
        key = layer.k_norm(key.view(shape).float()).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *self._seen["position_embeddings"])
        return query, key, layer.scaling


def _row_loss(
    scores: tuple[torch.Tensor, torch.Tensor, float],
    row: int,
    tokens: torch.Tensor,
    is_answer: torch.Tensor,
) -> torch.Tensor:
    query, key, scaling = scores
    # The query at ``place`` looks for the token after it.
    places = torch.nonzero(is_answer[_CONTEXT:]).flatten() + _CONTEXT - 1
    if len(places) > _MOST_PLACES:
        places = places[torch.randperm(len(places))[:_MOST_PLACES]]
    wanted = tokens[None] == tokens[places + 1, None]
    for back in range(_CONTEXT):
        shifted = torch.roll(tokens, back + 1)
        wanted &= shifted[None] == tokens[places - back, None]
    is_past = torch.arange(len(tokens))[None] <= places[:, None]
    wanted &= is_past
    wanted[:, : _CONTEXT + 1] = False
    with_place = wanted.any(1)
    places, wanted, is_past = places[with_place], wanted[with_place], is_past[with_place]
    logits = (query[row][:, places] @ key[row].transpose(-1, -2)) * scaling
    logits = logits.masked_fill(~is_past, float("-inf"))
    weights = logits.masked_fill(~wanted, float("-inf")).logsumexp(-1) - logits.logsumexp(-1)
    return -weights.max(0).values


@contextmanager
def attention_hint(model: Qwen3_5ForCausalLM) -> Iterator[AttentionHint]:
    """Watch the model's layer of full attention in this block."""
    hint = AttentionHint()
    (at,) = (index for index, kind in enumerate(model.config.layer_types) if kind == "full_attention")
    handle = model.model.layers[at].self_attn.register_forward_pre_hook(hint.note, with_kwargs=True)
    try:
        yield hint
    finally:
        handle.remove()
