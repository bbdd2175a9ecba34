"""What each rival has in place of the exact state after a prefix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.lossy.quantised_states import dequantised, quantised
from benchmarks.lossy.quantiser import Quantiser
from benchmarks.lossy.suffix_replay import replayed_state
from milepost.engines.transformers.driver import TransformersDriver
from milepost.engines.transformers.snapshot import KVSegment, StateSnapshot, zero_state

__all__ = ["CONTROL", "EXACT", "Prefix", "Rival", "replay", "rivals"]

EXACT, CONTROL = "exact", "zeroed (control)"


@dataclass(frozen=True, slots=True)
class Prefix:
    """What an earlier request left of a prefix: the exact state after it, its KV, and its tokens."""

    driver: TransformersDriver
    tokens: torch.Tensor
    state: StateSnapshot
    kv: Sequence[KVSegment]
    piece_tokens: int


Rival = Callable[[Prefix], StateSnapshot]


def rivals(num_replayed: Sequence[int]) -> dict[str, Rival]:
    """Return every rival by its name, the exact one first and the control last; a replay for each length."""
    return {
        EXACT: lambda prefix: prefix.state,
        "int8": _in_bits(8),
        "6 bit": _in_bits(6),
        **{f"replay {count:,}": replay(count) for count in num_replayed},
        CONTROL: lambda prefix: zero_state(prefix.state),
    }


def replay(num_replayed: int) -> Rival:
    """Return the replay of that many tokens."""
    return lambda prefix: replayed_state(
        prefix.driver,
        prefix.tokens,
        prefix.kv,
        num_replayed=num_replayed,
        piece_tokens=prefix.piece_tokens,
    )


def _in_bits(bits: int) -> Rival:
    quantiser = Quantiser(bits)
    return lambda prefix: dequantised(quantised(prefix.state, quantiser), quantiser)
