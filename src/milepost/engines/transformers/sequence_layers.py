"""Layers whose tensors grow by a row a token, upstream's and our own that have room for the tokens to come.

Upstream appends by ``torch.cat``: each call of the model, and so each token of an answer, copies all keys
and values before it. A *roomy* layer keeps them at the beginning of a longer buffer and writes what is new
behind them: a token's keys and values are copied once, and again where a buffer is outgrown, which then is
made an eighth longer at least.

What attention is given has the same shape and the same numbers; only the stride from one head to the next is
another. Whether a model computes the same bits from it is measured where it is opened (``probe``).

A buffer is written behind what its one layer filled and nowhere else. Tensors that others put into a layer
(cropped, reordered, given back by a row) have no room: what comes next is written into a buffer of its own.
Layers are allow-listed by **exact class**: a subclass may hold state that a slice would miss.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    DynamicIndexedLayer,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
)

__all__ = ["SEQUENCE_AXES", "fill", "plain_class", "plain_vars", "with_room"]

# Room is had in multiples of this many tokens, and at least so many beyond what a sequence is known to take.
_ROOM_TOKENS = 256
_GROWTH = 8


class _Growing:
    """A tensor that grows along one axis: the beginning of a buffer."""

    def __init__(self, tensor: torch.Tensor, axis: int) -> None:
        self._buffer = tensor
        self._axis = axis
        # What was handed in is full, and one that nobody wrote to has no axes yet.
        self._length = tensor.shape[axis] if tensor.ndim > 1 else 0

    @property
    def filled(self) -> torch.Tensor:
        return self._buffer if self._is_full else self._buffer.narrow(self._axis, 0, self._length)

    @property
    def _is_full(self) -> bool:
        return self._buffer.ndim <= 1 or self._length == self._buffer.shape[self._axis]

    def append(self, pieces: Sequence[torch.Tensor], *, expected_tokens: int) -> torch.Tensor:
        """Write ``pieces`` behind what is there, and return all of it. O(bytes of the pieces), and of all
        where there was no room.
        """
        length = self._length + sum(piece.shape[self._axis] for piece in pieces)
        like = pieces[0]
        if self._length and (like.dtype, like.device) != (self._buffer.dtype, self._buffer.device):
            raise TypeError(
                f"{like.dtype} on {like.device} cannot be written behind {self._buffer.dtype} on "
                f"{self._buffer.device}"
            )
        if not self._length or length > self._buffer.shape[self._axis]:
            kept = self.filled
            shape = list(like.shape)
            shape[self._axis] = _room(length, expected_tokens)
            self._buffer = like.new_empty(shape)
            if self._length:
                self._buffer.narrow(self._axis, 0, self._length).copy_(kept)
        room = self._buffer.narrow(self._axis, self._length, length - self._length)
        if len(pieces) == 1:
            room.copy_(like)
        else:
            torch.cat(list(pieces), dim=self._axis, out=room)
        self._length = length
        return self.filled


def _room(num_tokens: int, expected_tokens: int) -> int:
    """Return how long a buffer is made that must hold ``num_tokens``."""
    wanted = max(expected_tokens + _ROOM_TOKENS, num_tokens + num_tokens // _GROWTH)
    return -(-wanted // _ROOM_TOKENS) * _ROOM_TOKENS


class _InBuffer:
    """An attribute of a layer: a tensor with room behind it. Setting it takes the room away."""

    def __init__(self, axis: int) -> None:
        self._axis = axis

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        if layer is None:
            return self
        held = vars(layer)[self._name]
        return None if held is None else held.filled

    def __set__(self, layer: Any, tensor: torch.Tensor | None) -> None:
        # Where upstream's class has the tensor itself, so that all attributes keep their order.
        vars(layer)[self._name] = None if tensor is None else _Growing(tensor, self._axis)


class _RoomyLayer:
    """What roomy layers have in common.

    Attributes:
        expected_tokens: Tokens that its sequence is known to take.
    """

    expected_tokens: int
    keys = _InBuffer(-2)
    values = _InBuffer(-2)
    # Of the class that it stands for.
    is_initialized: bool
    lazy_initialization: Any

    def append(self, name: str, pieces: Sequence[torch.Tensor]) -> torch.Tensor:
        """Write ``pieces`` behind the tensor of that name, and return all of it."""
        held: _Growing = vars(self)[name]
        return held.append(pieces, expected_tokens=self.expected_tokens)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``DynamicLayer.update``."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self.append("keys", [key_states]), self.append("values", [value_states])


class _RoomyDynamicLayer(_RoomyLayer, DynamicLayer):
    """A layer of full attention."""


class _RoomyHybridLayer(  # type: ignore[misc, override]  # upstream's own bases do not agree
    _RoomyLayer, LinearAttentionAndFullAttentionLayer
):
    """A layer of full attention with states beside it."""


class _RoomyIndexedLayer(_RoomyLayer, DynamicIndexedLayer):
    """A layer of full attention with an index beside it, whose positions the model appends itself."""

    indexer_keys = _InBuffer(1)

    def update_indexer(self, indexer_key_states: torch.Tensor) -> torch.Tensor:
        """See ``DynamicIndexedLayer.update_indexer``."""
        if not self.is_indexer_initialized:
            self.lazy_initialization_indexer(indexer_key_states)
        return self.append("indexer_keys", [indexer_key_states])


_ROOMY: Mapping[type, type] = {
    DynamicLayer: _RoomyDynamicLayer,
    LinearAttentionAndFullAttentionLayer: _RoomyHybridLayer,
    DynamicIndexedLayer: _RoomyIndexedLayer,
}
_PLAIN: Mapping[type, type] = {roomy: plain for plain, roomy in _ROOMY.items()}

_KEYS_AND_VALUES = {"keys": -2, "values": -2}
_INDEX = {"indexer_keys": 1, "indexer_position_ids": -1}
SEQUENCE_AXES: Mapping[type, Mapping[str, int]] = {
    DynamicLayer: _KEYS_AND_VALUES,
    LinearAttentionAndFullAttentionLayer: _KEYS_AND_VALUES,
    DynamicIndexedLayer: _KEYS_AND_VALUES | _INDEX,
}
"""By upstream's exact class: the attributes that hold a row for each token, and the axis that counts them."""


def plain_class(kind: type) -> type:
    """Return upstream's class that ``kind`` stands for; itself where it is none of ours."""
    return _PLAIN.get(kind, kind)


def plain_vars(value: Any) -> dict[str, Any]:
    """Return the attributes that upstream's class would have here."""
    if type(value) not in _PLAIN:
        return vars(value)
    return {
        name: item.filled if isinstance(item, _Growing) else item
        for name, item in vars(value).items()
        if name != "expected_tokens"
    }


def with_room(cache: Any, expected_tokens: int) -> Any:
    """Replace the layers of ``cache`` that grow by roomy ones, and return it. What they hold is not copied
    before it grows.

    Args:
        cache: Of any kind; one without such layers is left as it is.
        expected_tokens: Tokens that the sequence is known to take.
    """
    if isinstance(cache, Cache):
        cache.layers = [_roomy(layer, expected_tokens) for layer in cache.layers]
    return cache


def _roomy(layer: Any, expected_tokens: int) -> Any:
    kind = _ROOMY.get(type(layer))
    if kind is None:
        return layer
    made: Any = object.__new__(kind)
    made.expected_tokens = expected_tokens
    for name, item in vars(layer).items():
        setattr(made, name, item)
    return made


def fill(layer: Any, name: str, pieces: Sequence[torch.Tensor]) -> None:
    """Put ``pieces``, one after the other, into an attribute of ``layer`` that is empty. One copy."""
    axis = SEQUENCE_AXES[plain_class(type(layer))][name]
    if isinstance(layer, _RoomyLayer) and isinstance(getattr(type(layer), name, None), _InBuffer):
        setattr(layer, name, pieces[0].new_empty(0))
        layer.append(name, pieces)
    else:
        setattr(layer, name, torch.cat(list(pieces), dim=axis))
