"""Positions that a client asks to have kept for some time, as ``cache_control`` does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from milepost.counts import as_count, as_number
from milepost.errors import InvalidRequestError

__all__ = ["Pin", "PinLike", "as_pins"]


@dataclass(frozen=True, slots=True)
class Pin:
    """One of them.

    Attributes:
        position: In tokens from the prompt's start; the last grid position up to here is kept.
        ttl_seconds: For how long at least, from the moment it is stored or asked for again.
    """

    position: int
    ttl_seconds: float


PinLike: TypeAlias = "Pin | tuple[int, float]"


def as_pins(pins: Iterable[PinLike] | None, *, num_tokens: int) -> tuple[Pin, ...]:
    """Return pins as checked values by ascending position; where two share one, the longer time counts.

    Raises:
        InvalidRequestError: one lies outside the prompt or has no time to live, or these are no pins.

    >>> as_pins([(40, 300.0), (7, 60), (7, 300)], num_tokens=40)
    (Pin(position=7, ttl_seconds=300.0), Pin(position=40, ttl_seconds=300.0))
    """
    if pins is None:
        return ()
    if isinstance(pins, str | bytes) or not isinstance(pins, Iterable):
        raise InvalidRequestError(f"pins={pins!r}; give a list of pairs, a position and its seconds to live")
    longest: dict[int, float] = {}
    for each in pins:
        pair = (each.position, each.ttl_seconds) if isinstance(each, Pin) else each
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidRequestError(f"a pin is {each!r:.100}; give a position and its seconds to live")
        position = as_count("position of a pin", pair[0], error=InvalidRequestError)
        if not 0 < position <= num_tokens:
            raise InvalidRequestError(
                f"pin at {position} of a prompt of {num_tokens}; give a position above 0, inside it"
            )
        seconds = as_number(
            "ttl_seconds of a pin",
            pair[1],
            least=5e-324,
            rule="more than 0 seconds",
            error=InvalidRequestError,
        )
        longest[position] = max(longest.get(position, 0.0), seconds)
    return tuple(Pin(position, seconds) for position, seconds in sorted(longest.items()))
