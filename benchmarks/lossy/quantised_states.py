"""Snapshots whose recurrent states are kept in few bits, and a driver that takes such.

Convolution states, counters and KV stay as they are: the first are a few tokens of activations, which the
known recipes leave alone too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.cache_utils import Cache

from benchmarks.lossy.quantiser import QuantisedTensor, Quantiser
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.snapshot import KVSegment, StateSnapshot, capture_state

__all__ = ["QuantisedState", "QuantisingDriver", "dequantised", "quantised"]


@dataclass(frozen=True, slots=True)
class QuantisedState:
    """A snapshot without its recurrent states, and those in few bits.

    Attributes:
        position: Tokens before it.
        rest: The snapshot without them.
        kept: Each by its layer and its place there.
        num_bytes: Of both.
    """

    position: int
    rest: StateSnapshot
    kept: dict[tuple[int, int], QuantisedTensor]
    num_bytes: int


def quantised(snapshot: StateSnapshot, quantiser: Quantiser) -> QuantisedState:
    """Return ``snapshot`` with its recurrent states in few bits.

    Raises:
        TypeError: its cache is none of the layered ones, so nobody knows which of its tensors are recurrent.
    """
    rest = _copy(snapshot)
    kept: dict[tuple[int, int], QuantisedTensor] = {}
    num_bytes = snapshot.num_bytes
    for layer, place, states in _recurrent_states(rest.frame):
        kept[layer, place] = quantiser.encode(states[place])
        num_bytes += kept[layer, place].num_bytes - states[place].nbytes
        states[place] = None
    return QuantisedState(snapshot.position, rest, kept, num_bytes)


def dequantised(state: QuantisedState, quantiser: Quantiser) -> StateSnapshot:
    """Return the snapshot that ``state`` stands for."""
    snapshot = _copy(state.rest)
    for (layer, place), kept in state.kept.items():
        snapshot.frame.layers[layer].recurrent_states[place] = quantiser.decode(kept)
    return snapshot


class QuantisingDriver:
    """A driver that keeps states in few bits; in all else it is the one that it is given."""

    def __init__(self, driver: TransformersDriver, quantiser: Quantiser) -> None:
        self._driver = driver
        self._quantiser = quantiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def capture(self, live: LiveCache) -> QuantisedState:
        """Return the state of ``live`` in few bits."""
        return quantised(self._driver.capture(live), self._quantiser)

    def restore(
        self, state: QuantisedState, kv: Sequence[KVSegment], *, position: int, num_tokens: int
    ) -> LiveCache:
        """Return a sequence that goes on from what ``state`` stands for."""
        snapshot = dequantised(state, self._quantiser)
        return self._driver.restore(snapshot, kv, position=position, num_tokens=num_tokens)


def _copy(snapshot: StateSnapshot) -> StateSnapshot:
    return capture_state(snapshot.frame, snapshot.position)


def _recurrent_states(frame: Any) -> Iterator[tuple[int, int, dict[int, Any]]]:
    """Yield the layer and the place of every recurrent state, and the dictionary that it stands in."""
    if not isinstance(frame, Cache):
        raise TypeError(f"a {type(frame).__name__} does not tell which of its tensors are recurrent states")
    for layer_index, layer in enumerate(frame.layers):
        states: dict[int, Any] = getattr(layer, "recurrent_states", {})
        for place, state in states.items():
            if state is not None:
                yield layer_index, place, states
