"""Traces of token ids: a list of them, or an object with them under one of the usual names.

``{"prompt_token_ids": [1, 2, 3], "session_id": "a", "timestamp": 12.5}`` or just ``[1, 2, 3]``.
"""

import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

from milepost.errors import InvalidRequestError
from milepost.tokens import as_tokens
from milepost.traces.envelope import TEXT_NAMES, TOKEN_NAMES, OpenedLine
from milepost.traces.fields import Labels, first_of, numbered, positions
from milepost.traces.formats import ParsedLine
from milepost.traces.request import TraceRequest
from milepost.traces.turns import turn_of_keys

__all__ = ["TokenIds", "token_keys"]


class TokenIds:
    """Lines with token ids."""

    fields = "a list of token ids, alone or under 'tokens', 'token_ids', 'prompt_token_ids' or 'input_ids'"

    def counts_milliseconds(self, line: OpenedLine) -> bool:
        """Return that it counts seconds."""
        return False

    def recognises(self, line: OpenedLine) -> bool:
        """Return whether there are token ids. A count of tokens beside a text is none."""
        given = first_of(line.body, *TOKEN_NAMES)
        if isinstance(given, list) and given:
            return True
        has_text = any(line.body.get(name) for name in TEXT_NAMES)
        return not has_text and any(name in line.body for name in TOKEN_NAMES)

    def parse(self, line: OpenedLine, labels: Labels, *, place: str) -> ParsedLine:
        """Return the requests of one line, several where it is a batch. O(num_tokens)."""
        given = first_of(line.body, *TOKEN_NAMES)
        is_batch = isinstance(given, list) and bool(given) and all(isinstance(each, list) for each in given)
        prompts = [token_keys(each) for each in given] if is_batch else [token_keys(given)]
        breakpoints = positions(line.body, "breakpoints") if not is_batch else ()
        requests = tuple(
            TraceRequest(keys=keys, key_tokens=1, num_tokens=keys.size, breakpoints=breakpoints, **each)
            for keys, each in zip(prompts, numbered(labels, len(prompts)), strict=True)
        )
        turn = turn_of_keys(labels["session"], prompts[0]) if not is_batch else None
        return ParsedLine(requests=requests, turn=turn)


def token_keys(tokens: Any) -> npt.NDArray[np.int64]:
    """Return token ids as keys, one per token.

    Raises:
        InvalidRequestError: they are no list of token ids, or none at all.
    """
    # numpy would read a bool as a number, and a list of digits in quotes as strings of some width.
    if not isinstance(tokens, list) or set(map(type, tokens)) - {int}:
        raise InvalidRequestError(f"tokens are {reprlib.repr(tokens)}; give a list of whole numbers")
    keys = as_tokens(tokens).astype(np.int64)
    keys.flags.writeable = False
    return keys
