"""Snapshot and restore of any transformers cache, with one rule instead of one class a family.

The law. Whatever a model keeps between two forward calls is one of two things:

*Sequence tensors* grow by one row a token (the keys and values of full attention). A prefix of them is the
prefix's own, so they are cut into segments, stored once for all prompts that share them, and put together
again on restore. They are allow-listed by **exact class**: a subclass may hide state that a slice would miss.

*State* is everything else: recurrent and convolution states, sliding windows, running maxima, counters. It
is overwritten in place by the next token, so it is deep-cloned. A tensor object that is held in two places is
one tensor in the clone too; tensors that merely share memory become independent. A class nobody listed is all
state: larger, never wrong.

A cache rebuilt from a snapshot at position ``k`` and the segments of ``[0, k)`` continues bit for bit like
the cache the snapshot was taken from. This module does not know which model it serves, what a prompt is,
or where snapshots are worth taking.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import FunctionType
from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig

from milepost.engines.transformers.sequence_layers import (
    SEQUENCE_AXES,
    fill,
    plain_class,
    plain_vars,
    with_room,
)
from milepost.errors import CacheCorruptionError, UnsupportedModelError

__all__ = [
    "CONSTANT_TENSORS",
    "KVSegment",
    "StateSnapshot",
    "build_cache",
    "capture_state",
    "copy_cache",
    "has_same_bits",
    "slice_kv",
    "state_parts",
    "zero_state",
]

# Constants of a layer that look like state: cloning them would charge a checkpoint for configuration.
CONSTANT_TENSORS = frozenset({"_sliding_window_tensor"})
_BY_REFERENCE = (
    type(None), bool, int, float, complex, str, bytes, type, Enum, FunctionType,
    torch.dtype, torch.device, torch.nn.Module, PreTrainedConfig,
)  # fmt: skip

# (layer index, attribute): names one sequence tensor inside a cache.
SequenceKey = tuple[int, str]


@dataclass(frozen=True, slots=True)
class KVSegment:
    """The sequence tensors of tokens ``[start, end)``, owned (never views of a live cache)."""

    start: int
    end: int
    tensors: dict[SequenceKey, torch.Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors; O(layers)."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """Everything that is not a sequence tensor, as it stood after ``position`` tokens."""

    position: int
    frame: Any
    num_bytes: int


def capture_state(
    cache: Any, position: int, *, copy_tensor: Callable[[torch.Tensor], torch.Tensor] = torch.clone
) -> StateSnapshot:
    """Deep-clone the state of ``cache``, which has seen ``position`` tokens. The cache is unchanged.

    Args:
        cache: Of any kind.
        position: Tokens that it has seen.
        copy_tensor: Returns what the clone has for a tensor of the cache.

    Raises:
        UnsupportedModelError: a sequence tensor does not hold exactly ``position`` tokens, or the cache holds
            an object that cannot be cloned safely.

    Complexity: O(bytes of state).
    """
    for (layer_index, attribute), tensor, axis in _sequence_tensors(cache):
        if tensor.shape[axis] != position:
            raise UnsupportedModelError(
                f"layer {layer_index} holds {tensor.shape[axis]} tokens in '{attribute}' after a prompt of "
                f"{position}: its cache is not a plain sequence, so it cannot be cut into segments"
            )
    cloner = _Cloner(copy_tensor)
    frame = cloner.clone(cache, skip=_sequence_attributes(cache))
    return StateSnapshot(position=position, frame=frame, num_bytes=cloner.num_bytes)


def slice_kv(cache: Any, start: int, end: int) -> KVSegment:
    """Copy the sequence tensors of tokens ``[start, end)`` out of ``cache``. O(bytes of the segment)."""
    return KVSegment(
        start=start,
        end=end,
        tensors={
            key: tensor.narrow(axis, start, end - start).clone(memory_format=torch.contiguous_format)
            for key, tensor, axis in _sequence_tensors(cache)
        },
    )


def build_cache(
    snapshot: StateSnapshot | None,
    segments: Sequence[KVSegment],
    *,
    new_cache: Callable[[], Any],
    expected_tokens: int | None = None,
) -> Any:
    """Build a live cache from a snapshot and the segments before it; both stay usable for other requests.

    Args:
        snapshot: State at the position the segments end at, or None where the model has no state (then a
            fresh cache from ``new_cache`` is filled with the segments alone).
        segments: Contiguous segments from token 0 to the snapshot's position.
        new_cache: Makes an empty cache of the model.
        expected_tokens: Tokens that the sequence is known to take: its layers have room for them, and grow in
            place. Upstream's own layers unless given.

    Raises:
        CacheCorruptionError: The segments leave a gap or do not end at the snapshot's position.

    Complexity: O(bytes of state and segments), one copy each.
    """
    segments = [segment for segment in segments if segment.tensors]
    _check_contiguous(snapshot, segments)
    cache = new_cache() if snapshot is None else _Cloner().clone(snapshot.frame, skip={})
    if expected_tokens is not None:
        cache = with_room(cache, expected_tokens)
    for layer_index, attribute in segments[0].tensors if segments else ():
        layer = cache.layers[layer_index]
        pieces = [segment.tensors[layer_index, attribute] for segment in segments]
        if snapshot is None:
            _initialize(layer, attribute, pieces[0])
        fill(layer, attribute, pieces)
    return cache


def copy_cache(cache: Any, *, expected_tokens: int | None = None) -> Any:
    """Return a live cache like ``cache`` that goes its own way. O(bytes of it), one copy.

    Args:
        cache: Of any kind.
        expected_tokens: As for :func:`build_cache`.
    """
    copy = _Cloner().clone(cache, skip=_sequence_attributes(cache))
    if expected_tokens is not None:
        copy = with_room(copy, expected_tokens)
    for (layer_index, attribute), tensor, _ in _sequence_tensors(cache):
        fill(copy.layers[layer_index], attribute, [tensor])
    return copy


def zero_state(snapshot: StateSnapshot, *, part: str | None = None) -> StateSnapshot:
    """Return a copy of ``snapshot`` with zeros for every tensor: what a family that loses its state has.

    Args:
        snapshot: What to copy.
        part: One of ``state_parts``: zero the tensors of that one alone.
    """
    cloner = _Cloner()
    cloner.copy_tensor = lambda t: torch.zeros_like(t) if part in (None, cloner.attribute) else t.clone()
    frame = cloner.clone(snapshot.frame, skip={})
    return StateSnapshot(position=snapshot.position, frame=frame, num_bytes=snapshot.num_bytes)


def state_parts(snapshot: StateSnapshot) -> tuple[str, ...]:
    """Return the names under which a cache holds the tensors of its state, as ``recurrent_states``."""
    names: set[str] = set()
    cloner = _Cloner()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel():
            names.add(cloner.attribute)
        return tensor

    cloner.copy_tensor = note
    cloner.clone(snapshot.frame, skip={})
    return tuple(sorted(names))


def has_same_bits(one: Any, other: Any) -> bool:
    """Return whether two frames, or collections of tensors, hold the same values, tensors bit for bit."""
    return _has_same_bits(one, other, set())


def _has_same_bits(one: Any, other: Any, compared: set[tuple[int, int]]) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return _are_same_tensors(one, other)
    if isinstance(one, _BY_REFERENCE):
        return bool(one is other or one == other)
    if (id(one), id(other)) in compared:
        return True
    # Entered before what it holds, so that a cycle ends here.
    compared.add((id(one), id(other)))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(
            _has_same_bits(mine, theirs, compared) for mine, theirs in zip(one, other, strict=True)
        )
    mine, theirs = (each if isinstance(each, dict) else vars(each) for each in (one, other))
    return mine.keys() == theirs.keys() and all(
        _has_same_bits(mine[key], theirs[key], compared) for key in mine
    )


def _are_same_tensors(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    # As bytes: a NaN equals itself, and the two zeros differ.
    pair = (each.detach().contiguous().reshape(-1).view(torch.uint8) for each in (one, other))
    return torch.equal(*pair)


def _initialize(layer: Any, attribute: str, like: torch.Tensor) -> None:
    """Tell a layer that never ran what it holds, or its next update would start over."""
    if attribute == "indexer_keys":
        layer.lazy_initialization_indexer(like)
    elif not layer.is_initialized:
        layer.lazy_initialization(like, like)


def _check_contiguous(snapshot: StateSnapshot | None, segments: Sequence[KVSegment]) -> None:
    end = 0
    for segment in segments:
        if segment.start != end:
            raise CacheCorruptionError(f"a segment starts at token {segment.start} where {end} was due")
        end = segment.end
    needs_segments = snapshot is not None and _waits_for_sequences(snapshot.frame)
    if snapshot is not None and (segments or needs_segments) and snapshot.position != end:
        raise CacheCorruptionError(f"segments end at token {end}, the snapshot stands at {snapshot.position}")


def _waits_for_sequences(frame: Any) -> bool:
    """Whether a snapshot's frame has layers whose sequence tensors were left to the segments."""
    layers: list[Any] = frame.layers if isinstance(frame, Cache) else []
    return any(
        layer.is_initialized and layer.keys is None for layer in layers if type(layer) in SEQUENCE_AXES
    )


def _sequence_tensors(cache: Any) -> Iterator[tuple[SequenceKey, torch.Tensor, int]]:
    """Yield the name, tensor and token axis of every sequence tensor that holds tokens."""
    if not isinstance(cache, Cache):
        return
    for layer_index, layer in enumerate(cache.layers):
        for attribute, axis in SEQUENCE_AXES.get(plain_class(type(layer)), {}).items():
            tensor = getattr(layer, attribute, None)
            if tensor is not None and tensor.numel() > 0:
                yield (layer_index, attribute), tensor, axis


def _sequence_attributes(cache: Any) -> dict[int, frozenset[str]]:
    """Map the id of each layer to the attributes of it that ``slice_kv`` takes care of."""
    skip: dict[int, set[str]] = {}
    for (layer_index, attribute), _, _ in _sequence_tensors(cache):
        skip.setdefault(id(cache.layers[layer_index]), set()).add(attribute)
    return {owner: frozenset(attributes) for owner, attributes in skip.items()}


class _Cloner:
    """Clones an object graph once, counting the bytes of the tensors it owns.

    Attributes:
        attribute: Where the tensor that is being copied hangs; ``state`` where it is no object's.
        copy_tensor: Makes the copy.
    """

    def __init__(self, copy_tensor: Callable[[torch.Tensor], torch.Tensor] = torch.clone) -> None:
        self.num_bytes = 0
        self.attribute = "state"
        self.copy_tensor = copy_tensor
        self._memo: dict[int, Any] = {}

    def clone(self, value: Any, *, skip: dict[int, frozenset[str]]) -> Any:
        if isinstance(value, _BY_REFERENCE):
            return value
        if id(value) not in self._memo:
            self._memo[id(value)] = self._clone_new(value, skip)
        return self._memo[id(value)]

    def _clone_new(self, value: Any, skip: dict[int, frozenset[str]]) -> Any:
        if isinstance(value, torch.Tensor):
            copy = self.copy_tensor(value).detach()
            self.num_bytes += copy.nbytes
            return copy
        if type(value) is dict:
            return {key: self.clone(item, skip=skip) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.clone(item, skip=skip) for item in value)
        has_slots = any(vars(base).get("__slots__") for base in type(value).__mro__)
        # Whatever is built by a __new__ of its own holds more than its __dict__ shows.
        is_plain = getattr(type(value), "__new__", None) is object.__new__ and hasattr(value, "__dict__")
        if has_slots or not is_plain:
            raise UnsupportedModelError(
                f"the model's cache holds a {type(value).__module__}.{type(value).__qualname__}, "
                "which cannot be cloned safely"
            )
        return self._clone_object(value, skip.get(id(value), frozenset()), skip)

    def _clone_object(self, value: Any, left_out: frozenset[str], skip: dict[int, frozenset[str]]) -> Any:
        copy = object.__new__(plain_class(type(value)))
        # Entered before its attributes, so that a cycle ends here.
        self._memo[id(value)] = copy
        for name, item in plain_vars(value).items():
            if name in left_out:
                copy.__dict__[name] = None
            elif name in CONSTANT_TENSORS:
                copy.__dict__[name] = item
            else:
                outer, self.attribute = self.attribute, name
                copy.__dict__[name] = self.clone(item, skip=skip)
                self.attribute = outer
        return copy
