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
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.cache_utils import Cache

from milepost.engines.transformers.frames import Cloner
from milepost.engines.transformers.sequence_layers import SEQUENCE_AXES, fill, plain_class, with_room
from milepost.errors import CacheCorruptionError, UnsupportedModelError

__all__ = [
    "KVSegment",
    "StateSnapshot",
    "build_cache",
    "capture_state",
    "copy_cache",
    "slice_kv",
    "state_parts",
    "tensors_of",
    "with_tensors",
    "zero_state",
]

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
    cloner = Cloner(copy_tensor)
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
    cache = new_cache() if snapshot is None else Cloner().clone(snapshot.frame)
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
    copy = Cloner().clone(cache, skip=_sequence_attributes(cache))
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
    cloner = Cloner()
    cloner.copy_tensor = lambda t: torch.zeros_like(t) if part in (None, cloner.attribute) else t.clone()
    frame = cloner.clone(snapshot.frame)
    return StateSnapshot(position=snapshot.position, frame=frame, num_bytes=snapshot.num_bytes)


def state_parts(snapshot: StateSnapshot) -> tuple[str, ...]:
    """Return the names under which a cache holds the tensors of its state, as ``recurrent_states``."""
    names: set[str] = set()
    cloner = Cloner()

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel():
            names.add(cloner.attribute)
        return tensor

    cloner.copy_tensor = note
    cloner.clone(snapshot.frame)
    return tuple(sorted(names))


def tensors_of(payload: StateSnapshot | KVSegment) -> list[torch.Tensor]:
    """Return the tensors that ``payload`` owns, each once, in an order of its own."""
    if isinstance(payload, KVSegment):
        return list(payload.tensors.values())
    found: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    Cloner(note).clone(payload.frame)
    return found


def with_tensors(payload: StateSnapshot | KVSegment, tensors: Sequence[torch.Tensor]) -> Any:
    """Return ``payload`` with others in the places of its own tensors, in the order of :func:`tensors_of`."""
    others = iter(tensors)
    if isinstance(payload, KVSegment):
        return replace(payload, tensors={key: next(others) for key in payload.tensors})
    return replace(payload, frame=Cloner(lambda _: next(others)).clone(payload.frame))


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
