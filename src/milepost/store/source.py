"""Where payloads come from, and what is checked of them before anything is stored.

Law: a source is asked for everything that one commit may store, and all of it is checked, while the store is
still as it was. What is out of order is an ``InvalidRequestError`` that changed nothing, and so is a source
that raises. The store then takes what it has room for from the delivery, which is a source itself.

KV that is stored already is not asked for. Where room can only be made by evicting some of it, it is put back
from the delivery, so nothing has to be asked for after the first eviction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from milepost.counts import as_count
from milepost.errors import InvalidRequestError
from milepost.footprint import Footprint
from milepost.store.checkpoint import Payload

__all__ = ["PayloadRules", "PayloadSource"]

# A state may differ from the footprint by an eighth: alignment, counters, another version of a format.
_TOLERANCE = 8


class PayloadSource(Protocol):
    """Where payloads come from: an engine, handing out what one prompt's prefill computed.

    Hand out *copies*. What is stored must not change when the engine computes on, and must not keep more
    memory alive than its ``num_bytes`` say: a state that is a view (a slice of a chunk's activations, an
    unbind of a stacked tensor) pins the whole buffer it looks into, which may be a hundred times as large.
    With torch, ``tensor.clone()`` is a copy and ``tensor.untyped_storage().nbytes()`` says what is pinned;
    with numpy, ``array.copy()`` is one and ``array.base is None`` says so.

    It is asked before anything is stored, once for each state and once for the KV. What is not stored in the
    end, and what is dropped later, is reported to the cache's ``on_drop``.
    """

    def checkpoint(self, position: int) -> Payload | None:
        """Return the state captured after ``position`` tokens, an object of its own for each position.

        Its ``num_bytes`` are those of the footprint to an eighth; where the position lies inside a KV
        segment, the KV since the segment's start may come on top. None is for a store of KV alone.
        """

    def kv_segments(self, start: int, end: int) -> Sequence[Any]:
        """Return one payload for each KV segment of ``[start, end)``, both multiples of the segment.

        Where a payload has ``num_bytes``, they are those of the footprint to an eighth. None stands for no
        content, in a replay: for all segments or for none.
        """


@final
@dataclass(frozen=True, slots=True)
class PayloadRules:
    """What one model's payloads have to be like.

    Attributes:
        footprint: What they cost.
        segment_tokens: Tokens of a KV segment.
    """

    footprint: Footprint
    segment_tokens: int

    def check_state(self, payload: Payload, position: int) -> None:
        """Raise ``InvalidRequestError`` unless the state after ``position`` tokens has the size it must."""
        footprint = self.footprint
        num_bytes = _size_of(payload, f"the state after {position} tokens")
        margin = footprint.checkpoint_bytes // _TOLERANCE
        is_full = position >= footprint.settled_tokens
        least = footprint.checkpoint_bytes_at(position) - margin if is_full else 0
        most = footprint.checkpoint_bytes + margin
        if position % self.segment_tokens:
            most += self.segment_tokens * footprint.kv_bytes_per_token
        if not least <= num_bytes <= most:
            raise InvalidRequestError(
                f"the source gave a state of {num_bytes:,} bytes after {position} tokens; by the footprint "
                f"it takes {max(0, least):,} to {most:,}: hand out the whole state and nothing else, or give "
                "the cache the footprint that was measured (Footprint.from_measurements)"
            )

    def check_segments(self, payloads: Sequence[Any], kv: range) -> None:
        """Raise ``InvalidRequestError`` unless there is one payload for each segment of the tokens ``kv``."""
        num_segments = len(kv) // self.segment_tokens
        where = f"the KV of tokens {kv.start} to {kv.stop}"
        if len(payloads) != num_segments:
            raise InvalidRequestError(
                f"the source gave {_how_many(payloads, num_segments)} for {where}; give one for "
                f"each of the {num_segments} segments of {self.segment_tokens}"
            )
        num_empty = sum(payload is None for payload in payloads)
        if num_empty == num_segments:
            return
        if num_empty:
            raise InvalidRequestError(
                f"the source gave None for {num_empty} of the {num_segments} segments of {where}; "
                "give a payload for each"
            )
        if len(set(map(id, payloads))) < num_segments:
            raise InvalidRequestError(
                f"the source gave one object for several segments of {where}; give each its own"
            )
        expected = self.segment_tokens * self.footprint.kv_bytes_per_token
        margin = expected // _TOLERANCE
        for payload in payloads:
            if hasattr(payload, "num_bytes"):
                num_bytes = _size_of(payload, f"a segment of {where}")
                if not expected - margin <= num_bytes <= expected + margin:
                    raise InvalidRequestError(
                        f"the source gave a segment of {num_bytes:,} bytes for {where}; by the footprint "
                        f"it takes {expected:,}: hand out the keys and values of its tokens alone, or give "
                        "the cache the footprint that was measured (Footprint.from_measurements)"
                    )


def _size_of(payload: Any, what: str) -> int:
    if not hasattr(payload, "num_bytes"):
        raise InvalidRequestError(
            f"the source gave a {type(payload).__name__} without num_bytes for {what}; a payload says how "
            "many bytes it keeps alive"
        )
    return as_count(f"num_bytes of {what}", payload.num_bytes, error=InvalidRequestError)


def _how_many(payloads: Sequence[Any], num_due: int) -> str:
    return "too many payloads" if len(payloads) > num_due else f"{len(payloads)} payloads"
