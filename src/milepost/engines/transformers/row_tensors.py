"""Tensors of many sequences, a row each, of different lengths: taken in, written, moved and given back.

The law. What a row computes must not depend on which other rows there are, how long they are, or where it
sits. So nothing is padded on the left and nothing is appended: every row writes its next token at a column of
its own, counted from its own start, into a *bucket* that is wider than the longest row. Columns that a row
has not written are masked; they hold finite numbers, so that they add exact zeros, and a row's keys are added
up in the same order whatever the width. A sliding window is a ring: token ``p`` of a row lies in column
``p % window``. Recurrent states have no columns and are stacked as they are.

Which row is whose is not known here, nor what a model does with them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

__all__ = ["KeyRows", "RowPlaces", "RowTensors", "StateAccess", "StateRows"]


@dataclass(slots=True)
class RowPlaces:
    """How much room there is, and where the rows stand in the step that is running: all tensors share it.

    Attributes:
        num_slots: Rows that there is room for.
        capacity: Columns that there is room for.
        num_columns: Columns that full attention reads.
        positions: Tokens behind each row that is computed, so where its next one goes: ``int64[rows]``. They
            sit in the first slots.
    """

    num_slots: int
    capacity: int
    num_columns: int = 0
    positions: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    _rows: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    _in_rings: dict[int, torch.Tensor] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Rows that are computed."""
        return self.positions.numel()

    def step(self, positions: torch.Tensor, num_columns: int) -> None:
        """Say where the rows stand, and how wide attention is."""
        if self._rows.numel() != positions.numel():
            self._rows = torch.arange(positions.numel(), device=positions.device)
        self.positions = positions
        self.num_columns = num_columns
        self._in_rings.clear()

    def write(self, bucket: torch.Tensor, new: torch.Tensor, window: int | None) -> None:
        """Put a token of each row, ``new`` [rows, heads, 1, dim], at its column of ``bucket``."""
        columns = self.positions
        if window is not None:
            if window not in self._in_rings:
                self._in_rings[window] = columns % window
            columns = self._in_rings[window]
        bucket[self._rows, :, columns] = new[:, :, 0]


class RowTensors(Protocol):
    """Some tensors of every row, and the way between them and a sequence's own."""

    def seat(self, slot: int, one: Any) -> None:
        """Take the tensors out of ``one``, a sequence's own layer or cache, into ``slot``."""

    def unseat(self, slot: int, one: Any, position: int) -> None:
        """Give ``one`` its tensors, as they are after ``position`` tokens; the slot keeps what it holds."""

    def move(self, source: int, target: int) -> None:
        """Copy one slot over another."""

    def resize(self) -> None:
        """Have as much room as the places say, keeping what fits into it."""

    def fit(self) -> None:
        """Show the model as many rows as are computed."""


class KeyRows:
    """Keys and values of one layer.

    Args:
        one: A sequence's own layer of this kind.
        places: Where the rows stand.
        window: Tokens that a sliding window holds, the newest among them; None for full attention.

    Attributes:
        places: As given.
        window: As given.
    """

    def __init__(self, one: Any, places: RowPlaces, *, window: int | None) -> None:
        self.places = places
        self.window = window
        self._buckets = [self._empty(one.keys), self._empty(one.values)]

    @property
    def num_columns(self) -> int:
        """Columns that attention reads."""
        return self._within(self.places.num_columns)

    def write(self, *new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys and values of a token of each row; return the columns that attention reads."""
        rows, columns = self.places.num_rows, self.num_columns
        for bucket, tensor in zip(self._buckets, new, strict=True):
            self.places.write(bucket, tensor, self.window)
        keys, values = (bucket[:rows, :, :columns] for bucket in self._buckets)
        return keys, values

    def seat(self, slot: int, one: Any) -> None:
        """See :class:`RowTensors`."""
        columns = self._columns(self._end(one) - one.keys.shape[-2], self._end(one))
        for bucket, tensor in zip(self._buckets, (one.keys, one.values), strict=True):
            # What was there before may be anything, and 0 times infinity is no zero.
            bucket[slot].zero_()
            bucket[slot, :, columns] = tensor[0]
        one.keys = one.values = None

    def unseat(self, slot: int, one: Any, position: int) -> None:
        """See :class:`RowTensors`."""
        # As upstream: one token less than the window, since the next one is in it too.
        start = 0 if self.window is None else max(0, position - self.window + 1)
        columns = self._columns(start, position)
        one.keys, one.values = (
            # Cloned even where it is contiguous already: the slot is written by others.
            bucket[slot, :, columns].unsqueeze(0).clone(memory_format=torch.contiguous_format)
            for bucket in self._buckets
        )
        if self.window is not None:
            one.cumulative_length = position

    def move(self, source: int, target: int) -> None:
        """See :class:`RowTensors`."""
        for bucket in self._buckets:
            bucket[target] = bucket[source]

    def resize(self) -> None:
        """See :class:`RowTensors`."""
        for index, bucket in enumerate(self._buckets):
            self._buckets[index] = _copied(bucket, self._empty(bucket))

    def fit(self) -> None:
        """See :class:`RowTensors`: ``write`` looks there itself."""

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        _, heads, _, dim = like.shape
        return like.new_zeros(self.places.num_slots, heads, self._within(self.places.capacity), dim)

    def _within(self, num_columns: int) -> int:
        return num_columns if self.window is None else min(self.window, num_columns)

    def _end(self, one: Any) -> int:
        end: int = one.keys.shape[-2] if self.window is None else one.cumulative_length
        return end

    def _columns(self, start: int, end: int) -> torch.Tensor | slice:
        if self.window is None or end <= self.window:
            return slice(start, end)
        return torch.arange(start, end, device=self._buckets[0].device) % self.window


def _keep_no_count(_: Any, __: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class StateAccess:
    """Where a kind of layer or cache holds its states.

    Attributes:
        take: Returns them, the axis of sequences first, in an order of its own.
        put: Puts others in their places.
        count: Notes how many tokens they have seen, where that is kept beside them.
    """

    take: Callable[[Any], Sequence[torch.Tensor]]
    put: Callable[[Any, Sequence[torch.Tensor | None]], None]
    count: Callable[[Any, int], None] = _keep_no_count


class StateRows:
    """States that have no columns: of one layer, or of a whole cache.

    Args:
        one: A sequence's own layer or cache.
        rows: What the model is shown instead.
        places: Where the rows stand.
        access: How both hold them.
    """

    def __init__(self, one: Any, rows: Any, places: RowPlaces, access: StateAccess) -> None:
        self._rows = rows
        self._places = places
        self._access = access
        self._stacks = [self._empty(state) for state in access.take(one)]

    def seat(self, slot: int, one: Any) -> None:
        """See :class:`RowTensors`."""
        for stack, state in zip(self._stacks, self._access.take(one), strict=True):
            stack[slot] = state[0]
        self._access.put(one, [None] * len(self._stacks))

    def unseat(self, slot: int, one: Any, position: int) -> None:
        """See :class:`RowTensors`."""
        self._access.put(one, [stack[slot : slot + 1].clone() for stack in self._stacks])
        self._access.count(one, position)

    def move(self, source: int, target: int) -> None:
        """See :class:`RowTensors`."""
        for stack in self._stacks:
            stack[target] = stack[source]

    def resize(self) -> None:
        """See :class:`RowTensors`."""
        self._stacks = [_copied(stack, self._empty(stack)) for stack in self._stacks]

    def fit(self) -> None:
        """See :class:`RowTensors`."""
        self._access.put(self._rows, [stack[: self._places.num_rows] for stack in self._stacks])

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros(self._places.num_slots, *like.shape[1:])


def _copied(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Copy all of ``source`` that fits into ``target``; return that."""
    common = tuple(slice(min(sizes)) for sizes in zip(source.shape, target.shape, strict=True))
    target[common] = source[common]
    return target
