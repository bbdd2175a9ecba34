"""What a client may say with a request, in the parameters that an engine hands through."""

from typing import Any

__all__ = ["breakpoints_of"]

#: Token positions where messages end.
_BREAKPOINTS_KEY = "milepost_breakpoints"


def breakpoints_of(parameters: Any, *, num_tokens: int) -> tuple[int, ...]:
    """Return where the messages of a prompt end, as its client said. It is a hint: nonsense is left out.

    Args:
        parameters: The object that came with the request; None, or anything else, where none did.
        num_tokens: Length of the prompt.

    >>> breakpoints_of({"milepost_breakpoints": [412, -1, "end", 3920]}, num_tokens=1000)
    (412,)
    """
    given = parameters.get(_BREAKPOINTS_KEY) if isinstance(parameters, dict) else None
    if not isinstance(given, list | tuple):
        return ()
    numbers = (at for at in given if isinstance(at, int | float) and not isinstance(at, bool))
    # Between two tokens there is no position: 0.5 would become 0, which is none either.
    return tuple(int(at) for at in numbers if 0 < at <= num_tokens and at == int(at))
