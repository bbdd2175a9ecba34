"""What a source hands out for one prompt: asked for and checked before the store is touched."""

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from typing import Any, final

from milepost.errors import InvalidRequestError
from milepost.store.checkpoint import Checkpoint, Payload
from milepost.store.drops import DropReports
from milepost.store.prefix_store import PrefixStore
from milepost.store.source import PayloadRules, PayloadSource
from milepost.store.tree import TreeMatch

__all__ = ["Collector", "Delivery", "require_source"]


def require_source(source: object) -> None:
    """Raise ``InvalidRequestError`` unless ``source`` has what a ``PayloadSource`` needs."""
    if not all(callable(getattr(source, name, None)) for name in ("checkpoint", "kv_segments")):
        raise InvalidRequestError(
            f"source={source!r}; give an object with the methods checkpoint and kv_segments"
        )


@final
class Delivery:
    """What a source handed out for one prompt, checked. A source for the store, each payload taken once.

    Attributes:
        positions: Where a checkpoint is to be.
        present: Those that are stored already, by position; nothing was asked for them.
        restored: KV that was stored before, and was taken from here because it had been evicted since.
    """

    def __init__(
        self,
        positions: Sequence[int],
        resident: Sequence[Any],
        *,
        segment_tokens: int,
        present: Mapping[int, Checkpoint],
    ) -> None:
        self.positions = positions
        self.present = present
        self.restored: list[Any] = []
        self._segment_tokens = segment_tokens
        self._states: dict[int, Payload] = {}
        self._segments = list(resident)
        self._num_resident = len(resident)
        self._is_taken: set[int] = set()

    def add_state(self, position: int, payload: Payload) -> None:
        """Take in the state after ``position`` tokens."""
        self._states[position] = payload

    def add_segments(self, payloads: Sequence[Any]) -> None:
        """Take in the KV that follows what is stored already."""
        self._segments += payloads

    def checkpoint(self, position: int) -> Payload:
        """Return the state after ``position`` tokens."""
        return self._states.pop(position)

    def kv_segments(self, start: int, end: int) -> Sequence[Any]:
        """Return the payloads of ``[start, end)``."""
        first, last = start // self._segment_tokens, end // self._segment_tokens
        self._is_taken.update(range(max(first, self._num_resident), last))
        self.restored += self._segments[first : min(last, self._num_resident)]
        return self._segments[first:last]

    def left(self) -> list[Any]:
        """Return what was handed out and not taken."""
        segments = range(self._num_resident, len(self._segments))
        return [
            *self._states.values(),
            *(self._segments[index] for index in segments if index not in self._is_taken),
        ]


@final
class Collector:
    """Asks sources on behalf of one store.

    Args:
        store: What is there already.
        rules: What payloads have to be like.
        drops: Told of what was handed out in vain.
    """

    def __init__(self, store: PrefixStore, *, rules: PayloadRules, drops: DropReports) -> None:
        self._store = store
        self._rules = rules
        self._drops = drops

    def collect(
        self,
        source: PayloadSource | None,
        match: TreeMatch,
        positions: Sequence[int],
        *,
        kv_end: int,
        resumed_from: Payload | None,
    ) -> Delivery:
        """Return what ``source`` has for checkpoints at ``positions`` and the KV before ``kv_end``. Changes
        nothing.

        Args:
            source: Hands out the payloads that are not stored yet; None where there are none to be had, and
                then nothing is wanted of it.
            match: The prompt, as the tree knows it now.
            positions: In tokens.
            kv_end: The deepest token whose KV may be stored.
            resumed_from: The state that the prompt was resumed from, which must not come back as another.

        Raises:
            InvalidRequestError: something breaks a rule.

        Complexity: O(segments of the prompt).
        """
        if source is not None or kv_end > 0:
            require_source(source)
        store, step = self._store, self._rules.segment_tokens
        found = {position: store.state_at(match, position) for position in positions}
        present = {position: checkpoint for position, checkpoint in found.items() if checkpoint is not None}
        resident = store.resident_kv(match) if kv_end else []
        delivery = Delivery(positions, resident, segment_tokens=step, present=present)
        try:
            if source is None:
                return delivery
            if not store.is_stateless:
                missing = [position for position in positions if position not in present]
                self._ask_for_states(delivery, source, missing, resumed_from)
            if len(resident) < kv_end // step:
                self._ask_for_kv(delivery, source, range(len(resident) * step, kv_end // step * step))
        except BaseException:
            self._drops.note(delivery.left())
            raise
        return delivery

    def _ask_for_states(
        self,
        delivery: Delivery,
        source: PayloadSource,
        positions: Iterable[int],
        resumed_from: Payload | None,
    ) -> None:
        seen = {id(resumed_from)}
        for position in positions:
            payload = source.checkpoint(position)
            if payload is None:
                raise InvalidRequestError(
                    f"the source gave None for the state after {position} tokens; hand out a payload "
                    "with num_bytes, or leave the position out of the placement"
                )
            if id(payload) in seen:
                raise InvalidRequestError(
                    f"the source gave one object for the state after {position} tokens and for another "
                    "one; the engine computes on in it: hand out a copy for each position"
                )
            seen.add(id(payload))
            delivery.add_state(position, payload)
            self._rules.check_state(payload, position)

    def _ask_for_kv(self, delivery: Delivery, source: PayloadSource, kv: range) -> None:
        handed_out = source.kv_segments(kv.start, kv.stop)
        if isinstance(handed_out, str | bytes | Mapping | Set) or not isinstance(handed_out, Iterable):
            raise InvalidRequestError(
                f"the source gave a {type(handed_out).__name__} for the KV of tokens {kv.start} to "
                f"{kv.stop}; give a list of payloads, one per segment"
            )
        # One more than are due is enough to tell, even if there is no end of them.
        payloads = list(islice(handed_out, len(kv) // self._rules.segment_tokens + 1))
        delivery.add_segments(payloads)
        self._rules.check_segments(payloads, kv)
