"""Sequences that are decoded together: a token of each in one forward call, whichever came or went meanwhile.

A sequence that is advanced here sits in a *slot* until it leaves, and its own cache is empty so long. Slots
that are computed are always the first ones. There are two ways to fill them:

* *fixed*: as many rows as there are slots, in every call; those that nobody sits in are dummies. A row's
  result is then a function of its own tokens and of the number of slots: with layout and masks as in
  ``row_tensors``, and experts that take one token at a time, no kernel sees anything of a row's company. In
  float32 kernels take rows by fours and what is left over by other code, so slots are 4, 8, 16 and so on.
* *free*: as many rows as there are sequences. What the kernels do depends on how many, so results agree from
  one company to another up to rounding alone.

Either way a row agrees with the same tokens run alone up to rounding: a matrix times one vector is computed
by another kernel than a matrix times many.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from milepost.engines.base import Rows
from milepost.engines.transformers.driver import LiveCache, TransformersDriver
from milepost.engines.transformers.experts import UngroupedExperts
from milepost.engines.transformers.row_layers import RowCache
from milepost.engines.transformers.row_tensors import RowPlaces
from milepost.errors import InvalidRequestError

__all__ = ["BatchedRows"]

# Measured on a CPU, 34 families, 2 to 16 rows: the same prompt had the same bits in every row of 4, 8 and 16.
_LEAST_FIXED_ROWS = 4
# Columns of the smallest bucket; each next one has twice as many.
_LEAST_COLUMNS = 256
# Attention of free rows reads a multiple of this many columns. Fixed rows read a power of two: with 320
# columns and with 448 a kernel adds up the same keys in another order, with 256, 512 and 1,024 it does not.
_COLUMNS_STEP = 64
# What a dummy is given; any token would do.
_DUMMY_TOKEN = 0


class _Seated:
    """Stands in a live cache for what is in a row now; nothing can be run or captured from it."""

    __slots__ = ("cache",)

    def __init__(self, cache: Any) -> None:
        self.cache = cache


class BatchedRows(Rows):
    """See the module. One forward call a step; joining and leaving copy one row.

    Args:
        driver: Runs the model.
        count: Most sequences at once.
        is_fixed: Which of the two ways.

    Attributes:
        width: Most sequences at once; in *fixed*, the rows of every call, which may be more than asked for.
    """

    def __init__(self, driver: TransformersDriver, count: int, *, is_fixed: bool) -> None:
        self._driver = driver
        self.width = _power_of_two(count, least=_LEAST_FIXED_ROWS) if is_fixed else count
        self._is_fixed = is_fixed
        self._slots: list[LiveCache | None] = []
        self._empty_slots()
        self._slot_of: dict[int, int] = {}
        self._places = RowPlaces(num_slots=0, capacity=0)
        self._rows: RowCache | None = None
        self._mask_columns = torch.zeros(0, dtype=torch.int64)
        experts = UngroupedExperts(driver.model)
        self._experts = experts.applied if is_fixed else nullcontext

    @property
    def num_columns(self) -> int:
        """Tokens that there is room for in each row; 0 while nobody has joined."""
        return 0 if self._rows is None else self._places.capacity

    @torch.inference_mode()
    def advance(self, sequences: Sequence[LiveCache], tokens: Sequence[int]) -> Sequence[torch.Tensor]:
        """Run one token of each sequence, updating them in place.

        Those that were advanced before and are not now get their own caches back first.

        Returns:
            Logits after each of them, shape ``[vocabulary_size]``, in the order given.

        Raises:
            InvalidRequestError: There are too many, one comes twice, has computed nothing, or was lost.
            UnsupportedModelError: What one of them holds cannot be stacked.
        """
        self._check(sequences, tokens)
        if not self._is_fixed and len(sequences) == 1 and not self._slot_of:
            # In no company: nothing is gained by a row.
            alone = torch.tensor(tokens, device=self._driver.device)
            return [self._driver.advance(sequences[0], alone)]
        with self._losing_all_on_failure():
            rows = self._seat_these(sequences)
            slots = [self._slot_of[id(sequence)] for sequence in sequences]
            inputs = [_DUMMY_TOKEN] * len(self._slots)
            for slot, token in zip(slots, tokens, strict=True):
                inputs[slot] = token
            logits = self._step(rows, inputs)
            for sequence in sequences:
                sequence.position += 1
        return [logits[slot] for slot in slots]

    @torch.inference_mode()
    def leave(self, sequence: LiveCache, *, keeps: bool) -> None:
        """Give up the place of ``sequence``. Harmless where it has none.

        Args:
            sequence: One that may have been advanced here.
            keeps: Whether it is used on: then it has a cache of its own again, bit for bit what its row held,
                in O(bytes of it). Else it is lost.
        """
        slot = self._slot_of.get(id(sequence))
        if slot is None or self._rows is None:
            return
        with self._losing_all_on_failure():
            if keeps:
                own = sequence.cache.cache
                self._rows.unseat(slot, own, sequence.position)
                sequence.cache = own
            del self._slot_of[id(sequence)]
            self._vacate(slot)

    @contextmanager
    def _losing_all_on_failure(self) -> Iterator[None]:
        """Give up all sequences where something fails or is interrupted: some of their tensors may have moved
        or taken a token in, and others not.
        """
        try:
            yield
        except BaseException:
            self._empty_slots()
            self._slot_of.clear()
            self._rows = None
            raise

    def _check(self, sequences: Sequence[LiveCache], tokens: Sequence[int]) -> None:
        if len(sequences) != len(tokens) or not 0 < len(sequences) <= self.width:
            raise InvalidRequestError(
                f"{len(sequences)} sequences and {len(tokens)} tokens; "
                f"give a token for each of 1 to {self.width}"
            )
        if len({id(sequence) for sequence in sequences}) != len(sequences):
            raise InvalidRequestError("a sequence is given twice; a step computes one token of each")
        for sequence in sequences:
            if sequence.position == 0:
                raise InvalidRequestError(
                    "a sequence has computed nothing; advance its prompt by itself first"
                )
            if type(sequence.cache) is _Seated and id(sequence) not in self._slot_of:
                raise InvalidRequestError(
                    "a sequence was given up, or lost in a step that failed; compute it again from its prompt"
                )

    def _seat_these(self, sequences: Sequence[LiveCache]) -> RowCache:
        """Have exactly ``sequences`` in the slots."""
        wanted = {id(sequence) for sequence in sequences}
        for seated in [each for each in self._slots if each is not None and id(each) not in wanted]:
            self.leave(seated, keeps=True)
        new = [sequence for sequence in sequences if id(sequence) not in self._slot_of]
        if new or self._rows is None:
            self._make_room(sequences)
        assert self._rows is not None
        for sequence in new:
            slot = self._slots.index(None) if self._is_fixed else len(self._slots)
            own = sequence.cache
            # Marked before anything moves, so that what is interrupted here is lost and not half empty.
            sequence.cache = _Seated(own)
            self._rows.seat(slot, own)
            if self._is_fixed:
                self._slots[slot] = sequence
            else:
                self._slots.append(sequence)
            self._slot_of[id(sequence)] = slot
        return self._rows

    def _make_room(self, sequences: Sequence[LiveCache]) -> None:
        """Have slots and columns for ``sequences``, and no more than twice as many columns as it takes."""
        num_slots = self.width if self._is_fixed else _power_of_two(len(sequences), least=1)
        capacity = _power_of_two(_longest(sequences) + 1, least=_LEAST_COLUMNS)
        if self._rows is None:
            self._places = RowPlaces(num_slots=num_slots, capacity=capacity)
            self._rows = RowCache(sequences[0].cache, self._places)
            return
        places = self._places
        self._resize(
            num_slots=max(num_slots, places.num_slots) if places.num_slots <= 2 * num_slots else num_slots,
            capacity=max(capacity, places.capacity) if places.capacity <= 2 * capacity else capacity,
        )

    def _resize(self, *, num_slots: int, capacity: int) -> None:
        places = self._places
        if self._rows is not None and (num_slots, capacity) != (places.num_slots, places.capacity):
            self._rows.resize(num_slots=num_slots, capacity=capacity)

    def _step(self, rows: RowCache, inputs: list[int]) -> torch.Tensor:
        """Run one forward call over the slots; return logits ``[slots, vocabulary_size]``."""
        device = self._driver.model.device
        positions = [0 if each is None else each.position for each in self._slots]
        longest = max(positions) + 1
        if longest > self._places.capacity:
            self._resize(num_slots=self._places.num_slots, capacity=2 * self._places.capacity)
        places = self._places
        has_rows = places.num_rows == len(positions)
        places.step(torch.tensor(positions, device=device), self._num_columns(longest))
        if not has_rows:
            rows.fit()
        with self._experts():
            return self._driver.advance_rows(
                rows.model_cache,
                torch.tensor(inputs, device=device),
                positions=places.positions,
                mask=self._mask(rows) if rows.has_columns else None,
                longest=longest,
            )

    def _num_columns(self, longest: int) -> int:
        """Return how many columns attention reads."""
        if self._is_fixed:
            return _power_of_two(longest, least=_LEAST_COLUMNS)
        return -(-longest // _COLUMNS_STEP) * _COLUMNS_STEP

    def _mask(self, rows: RowCache) -> torch.Tensor:
        """Return ``bool[rows, columns]``: those of full attention, then those of the sliding windows."""
        places = self._places
        ring = 0 if rows.window is None else min(rows.window, places.num_columns)
        if self._mask_columns.numel() != places.num_columns + ring:
            device = places.positions.device
            self._mask_columns = torch.cat(
                [torch.arange(places.num_columns, device=device), torch.arange(ring, device=device)]
            )
        return self._mask_columns <= places.positions[:, None]

    def _vacate(self, slot: int) -> None:
        assert self._rows is not None
        if self._is_fixed:
            self._slots[slot] = None
        else:
            last = self._slots.pop()
            if slot < len(self._slots):
                assert last is not None
                self._rows.move(len(self._slots), slot)
                self._slots[slot] = last
                self._slot_of[id(last)] = slot
        if not self._slot_of:
            self._rows = None

    def _empty_slots(self) -> None:
        self._slots = [None] * self.width if self._is_fixed else []


def _longest(sequences: Sequence[LiveCache]) -> int:
    return max(sequence.position for sequence in sequences)


def _power_of_two(number: int, *, least: int) -> int:
    """Return the least power of two times ``least`` that is no less than ``number``."""
    while least < number:
        least *= 2
    return least
