"""How many cache points a request may have, in whatever dialect it is asked."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from milepost.chat.messages import CACHE_POINTS
from milepost.server.faults import refused

__all__ = ["places_in", "require_few"]

_MOST = 4


def require_few(places: Sequence[str]) -> None:
    """Raise ``RefusedError`` where a request has more cache points than four.

    Args:
        places: The name of each one's field.
    """
    if len(places) > _MOST:
        raise refused(
            f"the request has {len(places)} cache points, and {_MOST} are the most; leave some out",
            param=places[_MOST],
        )


def places_in(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the name of each cache point's field in messages as templates take them."""
    for at, message in enumerate(messages):
        content = message.get("content")
        for inner, part in enumerate(content if isinstance(content, list) else ()):
            for mark in CACHE_POINTS:
                if isinstance(part, Mapping) and part.get(mark) is not None:
                    yield f"messages.{at}.content.{inner}.{mark}"
