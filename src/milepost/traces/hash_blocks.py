"""Traces of block hashes: the prompts of production logs with their text taken out.

Three dialects are read, and a line may mix them:

* Mooncake (``kvcache-ai/Mooncake``, FAST'25 release): ``timestamp`` in milliseconds, ``input_length``,
  ``output_length``, ``hash_ids``. The files do not say it, but a block is 512 tokens.
* Qwen-Bailian (``alibaba-edu/qwen-bailian-usagetraces-anon``): the same with ``chat_id``, ``parent_chat_id``,
  ``turn`` and ``type``; ``timestamp`` is in seconds and a block is 16 tokens. A line names only its parent,
  and following parents to a conversation would need memory for all of them, so ``session`` stays unknown.
* Ours: ``block_size`` and ``timestamp_s`` say both, with ``session_id``, ``cache_salt`` and ``breakpoints``.

Some logs have an id for the last, partial block of a prompt and some leave it out. Then nobody knows what
those last tokens were: they get a key that no other line has, so they count and never match.
"""

import reprlib
from typing import Any

import numpy as np

from milepost.errors import InvalidRequestError
from milepost.traces.fields import Record, labels_of, positions, whole_number
from milepost.traces.keys import as_keys, hash_to_key
from milepost.traces.request import TraceRequest

__all__ = ["HashBlocks"]

_MOONCAKE_BLOCK_TOKENS = 512
_BAILIAN_BLOCK_TOKENS = 16


class HashBlocks:
    """Lines with ``hash_ids``."""

    fields = "'hash_ids' with 'input_length'"

    def recognises(self, record: Any) -> bool:
        """Return whether there are block ids."""
        return isinstance(record, dict) and "hash_ids" in record

    def parse(self, record: Any, *, line_number: int) -> TraceRequest:
        """Return the request of one line. O(num_keys)."""
        is_bailian = "chat_id" in record
        block_tokens = whole_number(record, "block_size", least=1)
        if block_tokens is None:
            block_tokens = _BAILIAN_BLOCK_TOKENS if is_bailian else _MOONCAKE_BLOCK_TOKENS
        num_tokens = whole_number(record, "input_length", least=1)
        if num_tokens is None:
            raise InvalidRequestError("input_length is missing; give the number of prompt tokens")
        return TraceRequest(
            keys=_keys_of(record, num_tokens, block_tokens, line_number),
            key_tokens=block_tokens,
            num_tokens=num_tokens,
            breakpoints=positions(record, "breakpoints"),
            **labels_of(record, line_number=line_number, milliseconds=not is_bailian),
        )


def _keys_of(record: Record, num_tokens: int, block_tokens: int, line_number: int) -> Any:
    ids = record["hash_ids"]
    if not isinstance(ids, list):
        raise InvalidRequestError(f"hash_ids={reprlib.repr(ids)}; give a list of ids")
    full, rest = divmod(num_tokens, block_tokens)
    keys = as_keys(ids)
    if rest and keys.size == full:
        keys = np.append(keys, hash_to_key(f"rest of line {line_number}"))
    if keys.size != full + bool(rest):
        raise InvalidRequestError(
            f"{keys.size} hash_ids do not cover input_length={num_tokens} in blocks of {block_tokens}; give "
            f"{full + bool(rest)}, or say another block_size"
        )
    keys.flags.writeable = False
    return keys
