"""Positions whose meaning hangs on how long the sequence is, and how long it may be.

Most models rotate position ``p`` alike in every prompt. Two kinds of rotary embedding do not: *LongRoPE* has
one set of frequencies up to the original context and another one beyond it, *dynamic NTK* one for each length
beyond it. transformers takes the length from the largest position of each forward call. So a prompt in one
forward call is rotated from its first token on by the frequencies of its whole length; in segments, each
segment would be by those of its own end, and be wrong.

The law here is ``generate``'s. A prompt is known in full, so its length decides, for every segment of it: the
*frequency length*, 0 up to the switch. Two prompts share states only where it is equal. Answers go on from
there as they do upstream, each token by its own length; families that compute everything anew where an answer
crosses the switch do so here too (``Adaptation.starts_over``).

A segment is computed at the prompt's length by showing the rotary module one position more, the last one of
the prompt, and dropping what comes back for it. Dynamic NTK also remembers on its module the longest sequence
of all that ran before: it is shown a short one first.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from milepost.engines.transformers.patch import ForwardPatch

__all__ = ["LengthRule", "context_lengths", "frequency_length", "length_rules", "patches", "rotated_for"]

_BY_SWITCH = "longrope"
_BY_LENGTH = "dynamic"
# Kinds that stretch positions, whose configurations may or may not count the stretch into the context.
_STRETCHED = ("linear", "dynamic", "yarn")

# The frequency length of the forward call that is running; unset in calls that are not ours.
_length: ContextVar[int] = ContextVar("frequency_length")


@dataclass(frozen=True, slots=True)
class LengthRule:
    """One rotary embedding that changes with the length of the sequence.

    Attributes:
        switch: Tokens up to which all sequences are rotated alike.
        is_by_length: Whether each length beyond has frequencies of its own, or all have the same.
    """

    switch: int
    is_by_length: bool

    def frequency_length(self, num_tokens: int) -> int:
        """Return the least length with the frequencies of ``num_tokens`` tokens, 0 up to the switch."""
        if num_tokens <= self.switch:
            return 0
        return num_tokens if self.is_by_length else self.switch + 1


def length_rules(config: Any) -> tuple[LengthRule, ...]:
    """Return how the positions of a text model depend on length: nothing, for most."""
    rules = []
    for kind, options in _rotary_embeddings(config):
        if kind == _BY_SWITCH:
            rules.append(LengthRule(int(options["original_max_position_embeddings"]), is_by_length=False))
        elif _BY_LENGTH in kind:
            rules.append(LengthRule(int(config.max_position_embeddings), is_by_length=True))
    return tuple(rules)


def frequency_length(rules: Iterable[LengthRule], num_tokens: int) -> int:
    """Return what ``num_tokens`` tokens are rotated by: prompts share states where this is equal."""
    return max((rule.frequency_length(num_tokens) for rule in rules), default=0)


def context_lengths(config: Any) -> tuple[int | None, int | None]:
    """Return the most tokens that a model takes, and how many its configuration speaks of, where it does.

    Stretched positions (linear, dynamic NTK, YaRN) end nowhere: whether ``max_position_embeddings`` is the
    length before or after stretching differs between models, so nothing is refused that upstream computes.
    """
    declared = getattr(config, "max_position_embeddings", None)
    stretches = [
        (options.get("original_max_position_embeddings") or declared or 0) * (options.get("factor") or 1)
        for kind, options in _rotary_embeddings(config)
        if kind in _STRETCHED
    ]
    if declared is None or not stretches:
        return declared, declared
    return None, max(declared, *map(int, stretches))


def patches(model: torch.nn.Module) -> Iterator[ForwardPatch]:
    """Yield a patch for every rotary module whose frequencies depend on length."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        named = kinds.values() if isinstance(kinds, dict) else (kinds,)
        changing = [kind for kind in named if isinstance(kind, str) and _depends_on_length(kind)]
        if changing:
            is_by_length = any(_BY_LENGTH in kind for kind in changing)
            yield ForwardPatch(module, partial(_forward, is_by_length))


@contextmanager
def rotated_for(frequency_length: int) -> Iterator[None]:
    """While open, forward calls rotate as in a sequence of this many tokens; 0 for what they hold alone."""
    token = _length.set(frequency_length)
    try:
        yield
    finally:
        _length.reset(token)


def _forward(
    is_by_length: bool,
    upstream: Any,
    _: torch.nn.Module,
    like: torch.Tensor,
    position_ids: torch.Tensor,
    *args: Any,
    **options: Any,
) -> Any:
    length = _length.get(None)
    if length is None:
        return upstream(like, position_ids, *args, **options)
    if is_by_length:
        upstream(like, torch.zeros_like(position_ids[..., :1]), *args, **options)
    if not length:
        return upstream(like, position_ids, *args, **options)
    last = torch.full_like(position_ids[..., :1], length - 1)
    rotated = upstream(like, torch.cat([position_ids, last], dim=-1), *args, **options)
    if isinstance(rotated, tuple):
        return tuple(part[..., :-1, :] for part in rotated)
    return rotated[..., :-1, :]


def _depends_on_length(kind: str) -> bool:
    return kind == _BY_SWITCH or _BY_LENGTH in kind


def _rotary_embeddings(config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind and the options of each rotary embedding; some models have one a kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    for options in nested or [parameters]:
        if kind := options.get("rope_type"):
            yield kind, options
