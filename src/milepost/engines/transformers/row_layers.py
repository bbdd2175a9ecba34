"""What a model sees of many sequences: a cache like its own, with a row of each in it (``row_tensors``).

A model makes one mask for each kind of attention, out of one two-dimensional mask whose columns it picks by
number. So that one is enough, the columns of sliding windows are numbered after those of full attention::

    columns    0 .. num_columns - 1   num_columns .. num_columns + min(window, num_columns) - 1
    read by    full attention         sliding windows

Caches and layers are allow-listed by **exact class**: a subclass may hold what a row would miss. What is not
listed cannot be stacked.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import (
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from milepost.engines.transformers.row_tensors import (
    KeyRows,
    RowPlaces,
    RowTensors,
    StateAccess,
    StateRows,
)
from milepost.engines.transformers.sequence_layers import plain_class
from milepost.errors import UnsupportedModelError

__all__ = ["RowCache"]


class RowCache:
    """Rows of many sequences: the cache that a model is called with, and the tensors in it.

    Args:
        one: A sequence's own cache, after a prompt; the others' are like it. It is left as it is.
        places: Where the rows stand.

    Attributes:
        model_cache: What the model is called with.
        window: Length of its sliding windows; None where it has none.
        has_columns: Whether anything is as long as a row, so that there is a mask to make.

    Raises:
        UnsupportedModelError: It holds what cannot be stacked. The message says what.
    """

    def __init__(self, one: Any, places: RowPlaces) -> None:
        self.window: int | None = None
        self.has_columns = False
        self._places = places
        # With each: where a sequence's own cache keeps what belongs there.
        self._parts: list[tuple[RowTensors, Callable[[Any], Any]]] = []
        kind = f"{type(one).__module__}.{type(one).__qualname__}"
        if kind in _CACHES_OF_LAYERS:
            self.model_cache = copy.copy(one)
            self.model_cache.layers = [
                self._layer(layer, index, places) for index, layer in enumerate(one.layers)
            ]
        elif kind in _CACHES_OF_STATES:
            self.model_cache = copy.deepcopy(one)
            rows = StateRows(one, self.model_cache, places, _CACHES_OF_STATES[kind])
            self._parts.append((rows, lambda cache: cache))
        else:
            raise UnsupportedModelError(f"its cache is a {kind}, and rows of it were never tried")

    def seat(self, slot: int, one: Any) -> None:
        """Take the tensors out of ``one``, a sequence's own cache, into ``slot``. O(bytes of a slot)."""
        for part, place in self._parts:
            part.seat(slot, place(one))

    def unseat(self, slot: int, one: Any, position: int) -> None:
        """Give ``one`` its tensors, as they are after ``position`` tokens. O(bytes of them)."""
        for part, place in self._parts:
            part.unseat(slot, place(one), position)

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another. O(bytes of a slot)."""
        for part, _ in self._parts:
            part.move(source, target)

    def resize(self, *, num_slots: int, capacity: int) -> None:
        """Make room for a number of rows and columns. O(bytes of all)."""
        self._places.num_slots, self._places.capacity = num_slots, capacity
        for part, _ in self._parts:
            part.resize()
        self.fit()

    def fit(self) -> None:
        """Show the model as many rows as are computed."""
        for part, _ in self._parts:
            part.fit()

    def _layer(self, one: Any, index: int, places: RowPlaces) -> Any:
        """Return what stands in the model's cache for the layer ``one``."""
        if type(one) is DummyLayer:
            return one
        upstream = plain_class(type(one))
        kind = _LAYERS.get(upstream)
        if kind is None:
            raise UnsupportedModelError(
                f"layer {index} of its cache is a {upstream.__name__}, and rows of it were never tried"
            )
        if getattr(one, "record_past", False):
            raise UnsupportedModelError(f"layer {index} of its cache is recording its past")
        place = _at_layer(index)
        keys: KeyRows | None = None
        if isinstance(one, DynamicLayer):
            keys = KeyRows(one, places, window=getattr(one, "sliding_window", None))
            self._note_window(keys.window)
            self.has_columns = True
            self._parts.append((keys, place))
        layer = kind(one, keys)
        if isinstance(one, LinearAttentionLayer):
            self._parts.append((StateRows(one, layer, places, _LAYER_STATES), place))
        return layer

    def _note_window(self, window: int | None) -> None:
        if window is None:
            return
        if self.window not in (None, window):
            raise UnsupportedModelError(
                f"its sliding windows have several lengths, as {self.window:,} and {window:,}"
            )
        self.window = window


class _FullRows(CacheLayerMixin):
    """A layer of full attention."""

    # Shapes do not change with the tokens: so a mask is made even where it would hide nothing, and attention
    # takes one kernel whatever the rows.
    is_compileable = True
    is_sliding = False

    def __init__(self, _: Any, rows: KeyRows) -> None:
        CacheLayerMixin.__init__(self)
        self._rows = rows
        self.is_initialized = True

    def lazy_initialization(self, *_: Any, **__: Any) -> None:
        """There is nothing to wait for."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a token of each row; return what attention reads."""
        return self._rows.write(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns are read, and which of the mask's is the first."""
        return self._rows.num_columns, 0

    def get_seq_length(self) -> int:
        """Return the number of the last column: causality hides nothing, the mask does."""
        return self._rows.places.num_columns - 1

    def get_max_length(self) -> int:
        """Return how many columns there is room for."""
        return self._rows.places.capacity


class _SlidingRows(_FullRows):
    """A layer with a sliding window."""

    is_sliding = True

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns are read, and which of the mask's is the first."""
        return self._rows.num_columns, self._rows.places.num_columns

    def get_seq_length(self) -> int:
        """Return a number from which the window looks back to its own first column and no further."""
        return self._rows.places.num_columns + (self._rows.window or 0) - 1


class _StateRows(LinearAttentionLayer):
    """A layer of states, which are stacked as they are."""

    is_compileable = True
    is_croppable = False

    def __init__(self, one: Any, _: KeyRows | None = None) -> None:
        super().__init__(one.number_of_states)
        for name in _STATE_SETTINGS:
            setattr(self, name, copy.copy(getattr(one, name)))


class _HybridRows(_StateRows, _FullRows):
    """A layer of full attention with states beside it."""

    def __init__(self, one: Any, rows: KeyRows) -> None:
        _FullRows.__init__(self, one, rows)
        _StateRows.__init__(self, one)


class _HybridSlidingRows(_StateRows, _SlidingRows):
    """A layer with a sliding window and states beside it."""

    def __init__(self, one: Any, rows: KeyRows) -> None:
        _SlidingRows.__init__(self, one, rows)
        _StateRows.__init__(self, one)


_LAYERS: dict[type, Callable[[Any, Any], Any]] = {
    DynamicLayer: _FullRows,
    DynamicSlidingWindowLayer: _SlidingRows,
    LinearAttentionLayer: _StateRows,
    LinearAttentionAndFullAttentionLayer: _HybridRows,
    LinearAttentionAndSlidingWindowAttentionLayer: _HybridSlidingRows,
}

# What a layer of states knows of all rows alike.
_STATE_SETTINGS = (
    "is_conv_states_initialized", "is_recurrent_states_initialized", "has_previous_state", "conv_kernel_size",
    "device", "dtype",
)  # fmt: skip


def _at_layer(index: int) -> Callable[[Any], Any]:
    return lambda cache: cache.layers[index]


def _state_places(layer: Any) -> list[tuple[dict[int, Any], int]]:
    both = (
        (layer.conv_states, layer.is_conv_states_initialized),
        (layer.recurrent_states, layer.is_recurrent_states_initialized),
    )
    return [(states, index) for states, initialized in both for index in states if initialized[index]]


def _take_layer_states(layer: Any) -> list[torch.Tensor]:
    return [states[index] for states, index in _state_places(layer)]


def _put_layer_states(layer: Any, tensors: Sequence[torch.Tensor | None]) -> None:
    for (states, index), tensor in zip(_state_places(layer), tensors, strict=True):
        states[index] = tensor


def _take_rnn_states(cache: Any) -> list[torch.Tensor]:
    return [state for states in cache.rnn_state.values() for state in states]


def _put_rnn_states(cache: Any, tensors: Sequence[torch.Tensor | None]) -> None:
    per_layer = len(tensors) // len(cache.rnn_state)
    cache.rnn_state = {
        layer: tuple(tensors[index * per_layer : (index + 1) * per_layer])
        for index, layer in enumerate(cache.rnn_state)
    }


def _put_listed_states(cache: list[Any], tensors: Sequence[torch.Tensor | None]) -> None:
    cache[:] = tensors


def _count_rnn_tokens(cache: Any, position: int) -> None:
    cache.seqlen_offset.fill_(position)


_LAYER_STATES = StateAccess(take=_take_layer_states, put=_put_layer_states)

_CACHES_OF_LAYERS = frozenset(
    {
        "transformers.cache_utils.DynamicCache",
        "transformers.models.minimax.modeling_minimax.MiniMaxCache",
    }
)

# xlstm's and rwkv's.
_CACHES_OF_STATES = {
    "transformers.models.xlstm.modeling_xlstm.xLSTMCache": StateAccess(
        take=_take_rnn_states, put=_put_rnn_states, count=_count_rnn_tokens
    ),
    "builtins.list": StateAccess(take=list, put=_put_listed_states),
}
