"""What a cache's layers held at some tokens of one forward call, noted while it is made."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicSlidingWindowLayer

from milepost.engines.transformers.snapshot import StateSnapshot, capture_state
from milepost.errors import UnsupportedModelError

__all__ = ["Recording", "current_recording", "recording_of"]

_recording: ContextVar["Recording | None"] = ContextVar("recording", default=None)


def current_recording() -> "Recording | None":
    """Return the recording of the forward call that this thread is in, or None."""
    return _recording.get()


@contextmanager
def recording_of(cache: Any, offsets: Sequence[int], num_tokens: int) -> Iterator["Recording"]:
    """While open, note what the layers of ``cache`` hold after ``offsets`` of the ``num_tokens`` of a call.

    Args:
        cache: It is watched, and left as it was.
        offsets: Ascending, each from 1 to below ``num_tokens``.
        num_tokens: Of the one call that is made meanwhile.

    Raises:
        UnsupportedModelError: the model's cache is of a kind of its own.
    """
    if not isinstance(cache, Cache):
        raise UnsupportedModelError("its cache is of a kind of its own")
    recording = Recording(cache, offsets, num_tokens)
    token = _recording.set(recording)
    try:
        yield recording
    finally:
        _recording.reset(token)
        recording.stop()


class Recording:
    """See the module.

    Attributes:
        offsets: After how many tokens of the call states are wanted.
        num_tokens: Tokens of the call.

    Args:
        cache: What is watched until :meth:`stop`.
        offsets: See above.
        num_tokens: See above.
    """

    def __init__(self, cache: Cache, offsets: Sequence[int], num_tokens: int) -> None:
        self.offsets, self.num_tokens = tuple(offsets), num_tokens
        self._cache = cache
        # Of each recurrence since a layer last took its state, what it held at the offsets.
        self._pending: list[list[torch.Tensor]] = []
        # By the id of the tensor that a layer holds after the call.
        self._held: dict[int, list[torch.Tensor]] = {}
        for name, note in (
            ("update_conv_state", self._note_convolution),
            ("update_recurrent_state", self._note_state),
            ("update", self._note_keys),
        ):
            # On the instance, where it hides the method until it is taken off.
            setattr(cache, name, partial(note, getattr(cache, name)))

    def stop(self) -> None:
        """Take the watch off the cache."""
        for name in ("update_conv_state", "update_recurrent_state", "update"):
            vars(self._cache).pop(name, None)

    def is_of(self, sequences: Mapping[str, torch.Tensor], axes: Mapping[str, int]) -> bool:
        """Return whether all of ``sequences`` hold the tokens of this call, on their ``axes``."""
        return all(each.shape[axes[name]] == self.num_tokens for name, each in sequences.items())

    def note_recurrence(self, states: Sequence[torch.Tensor]) -> None:
        """Take what a recurrence held at the offsets; the layer that is given its last state will ask."""
        self._pending.append([state.clone() for state in states])

    def snapshots(self, position: int) -> list[StateSnapshot]:
        """Return the cache's states at the offsets, after the call.

        Args:
            position: Tokens before the call.

        Raises:
            UnsupportedModelError: the cache holds what was not seen on its way there.
        """
        return [self._snapshot(position, index) for index in range(len(self.offsets))]

    def _snapshot(self, position: int, index: int) -> StateSnapshot:
        offset, end = self.offsets[index], position + self.num_tokens

        def held(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.numel() == 0:
                # Latent attention keeps values of no width beside its keys.
                has_tokens = tensor.ndim > 1 and tensor.shape[-2] == end
                return tensor[..., : position + offset, :].clone() if has_tokens else tensor.clone()
            if id(tensor) not in self._held:
                raise UnsupportedModelError("its cache holds states that no known recurrence computes")
            return self._held[id(tensor)][index]

        snapshot = capture_state(self._cache, end, copy_tensor=held)
        for layer in snapshot.frame.layers:
            if isinstance(layer, DynamicSlidingWindowLayer):
                layer.cumulative_length -= self.num_tokens - offset
        return StateSnapshot(position + offset, snapshot.frame, snapshot.num_bytes)

    def _note_convolution(
        self, upstream: Any, inputs: torch.Tensor, layer_idx: int, state_idx: int = 0, **options: Any
    ) -> torch.Tensor:
        full: torch.Tensor = upstream(inputs, layer_idx, state_idx, **options)
        state = self._layer(layer_idx).conv_states[state_idx]
        if inputs.shape[-1] == self.num_tokens:
            width, before = state.shape[-1], full.shape[-1] - self.num_tokens
            self._held[id(state)] = [
                _last_columns(full, before + offset, width).to(state.dtype) for offset in self.offsets
            ]
        return full

    def _note_state(
        self, upstream: Any, last: torch.Tensor, layer_idx: int, state_idx: int = 0, **options: Any
    ) -> torch.Tensor:
        returned: torch.Tensor = upstream(last, layer_idx, state_idx, **options)
        state = self._layer(layer_idx).recurrent_states[state_idx]
        pending, self._pending = self._pending, []
        if pending:
            # A mixer may run its heads one after the other.
            heads = list(zip(*pending, strict=True))
            noted = [each[0] if len(pending) == 1 else torch.stack(each, dim=1) for each in heads]
            if all(each.shape == state.shape for each in noted):
                self._held[id(state)] = [each.to(state.dtype) for each in noted]
        return returned

    def _note_keys(
        self,
        upstream: Any,
        keys: torch.Tensor,
        values: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **options: Any,
    ) -> Any:
        full = upstream(keys, values, layer_idx, *args, **options)
        layer = self._layer(layer_idx)
        if isinstance(layer, DynamicSlidingWindowLayer) and keys.shape[-2] == self.num_tokens:
            kept = layer.sliding_window - 1
            for whole, held in zip(full, (layer.keys, layer.values), strict=True):
                before = whole.shape[-2] - self.num_tokens
                self._held[id(held)] = [
                    whole[..., max(0, before + offset - kept) : before + offset, :].clone()
                    for offset in self.offsets
                ]
        return full

    def _layer(self, index: int) -> Any:
        return self._cache.layers[index]


def _last_columns(full: torch.Tensor, end: int, width: int) -> torch.Tensor:
    """Copy the last ``width`` columns of ``full`` before ``end``, zeros where it has none."""
    columns = full[..., max(0, end - width) : end]
    return functional.pad(columns, (width - columns.shape[-1], 0)) if end < width else columns.clone()
