"""Traces of token ids: a list of them, or an object with them under one of the usual names.

``{"prompt_token_ids": [1, 2, 3], "session_id": "a", "timestamp": 12.5}`` or just ``[1, 2, 3]``.
"""

import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

from milepost.errors import InvalidRequestError
from milepost.tokens import as_tokens
from milepost.traces.fields import first_of, labels_of, positions
from milepost.traces.request import TraceRequest

__all__ = ["TokenIds", "token_keys"]

_NAMES = ("tokens", "token_ids", "prompt_token_ids", "input_ids")


class TokenIds:
    """Lines with token ids."""

    fields = "a list of token ids, alone or under 'tokens', 'token_ids', 'prompt_token_ids' or 'input_ids'"

    def recognises(self, record: Any) -> bool:
        """Return whether there are token ids."""
        return isinstance(record, list) or (
            isinstance(record, dict) and any(name in record for name in _NAMES)
        )

    def parse(self, record: Any, *, line_number: int) -> TraceRequest:
        """Return the request of one line. O(num_tokens)."""
        if isinstance(record, list):
            record = {"tokens": record}
        keys = token_keys(first_of(record, *_NAMES))
        return TraceRequest(
            keys=keys,
            key_tokens=1,
            num_tokens=keys.size,
            breakpoints=positions(record, "breakpoints"),
            **labels_of(record, line_number=line_number),
        )


def token_keys(tokens: Any) -> npt.NDArray[np.int64]:
    """Return token ids as keys, one a token.

    Raises:
        InvalidRequestError: they are no list of token ids, or none at all.
    """
    # numpy would read a bool as a number, and a list of digits in quotes as strings of some width.
    if not isinstance(tokens, list) or set(map(type, tokens)) - {int}:
        raise InvalidRequestError(f"tokens are {reprlib.repr(tokens)}; give a list of whole numbers")
    keys = as_tokens(tokens).astype(np.int64)
    keys.flags.writeable = False
    return keys
