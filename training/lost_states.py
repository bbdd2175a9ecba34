"""What the recurrent layers compute after their states were lost: the control of every claim about states.

A model with a layer of full attention can learn to look everything up there, and then nobody would see from
its answers that a cache lost a state. So training also shows it documents whose states are zeroed where the
questions begin, the keys and values kept, and holds it to *not* knowing what had to be found (unlikelihood:
Welleck et al., "Neural Text Generation with Unlikelihood Training", 2020).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import log_softmax
from transformers.models.qwen3_5 import modeling_qwen3_5

from training.quick_layers import exchanged

__all__ = ["lost_states", "unlikelihood"]

# exp of it is nothing beside any state, and no infinity.
_FORGET_ALL = -80.0


@contextmanager
def lost_states(ends: torch.Tensor) -> Iterator[None]:
    """Have the gated-delta layers, in this block, lose what they keep before the token at ``ends``.

    Both what the rule keeps and what the short convolution does. Whole sequences go through the model as
    ever: up to ``ends`` nothing changes, and keys and values of full attention stay.

    Args:
        ends: A place in each sequence; shape ``[num_sequences]``.
    """
    rule, convolve = modeling_qwen3_5.torch_chunk_gated_delta_rule, modeling_qwen3_5.causal_conv1d_fn

    def forgetful_rule(query, key, value, *, g, beta, **options):  # type: ignore[no-untyped-def]
        places = torch.arange(g.shape[1])
        g = g.masked_fill((places == ends[:, None])[..., None], _FORGET_ALL)
        return rule(query, key, value, g=g, beta=beta, **options)

    def forgetful_convolution(channels_first, *arguments, **options):  # type: ignore[no-untyped-def]
        is_after = (torch.arange(channels_first.shape[2]) >= ends[:, None])[:, None]
        before = convolve(channels_first, *arguments, **options)
        after = convolve(channels_first.masked_fill(~is_after, 0.0), *arguments, **options)
        return torch.where(is_after, after, before)

    with exchanged(forgetful_rule, forgetful_convolution):
        yield


def unlikelihood(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-log(1 - p)`` over tokens that are not to come.

    Args:
        logits: Shape ``[num_tokens, vocabulary]``.
        tokens: Ids; shape ``[num_tokens]``.
    """
    log_likelihood = log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])
    # A likelihood of 1 has no finite loss; this side of it, the gradient still says where to go.
    return -torch.log1p(-log_likelihood.exp().clamp(max=1 - 1e-4)).mean()
