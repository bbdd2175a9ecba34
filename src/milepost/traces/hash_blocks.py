"""Traces of block hashes: the prompts of production logs with their text taken out.

Three dialects are read, and a line may mix them:

* Mooncake (``kvcache-ai/Mooncake``, FAST'25 release): ``timestamp`` in milliseconds, ``input_length``,
  ``output_length``, ``hash_ids``. The files do not say it, but a block is 512 tokens.
* Qwen-Bailian (``alibaba-edu/qwen-bailian-usagetraces-anon``): the same with ``chat_id``, ``parent_chat_id``,
  ``turn`` and ``type``; ``timestamp`` is in seconds and a block is 16 tokens. A line names only its parent,
  and following parents to a conversation would need memory for all of them, so ``session`` stays unknown.
  A turn whose blocks do not begin as its parent's holds only what is new (:mod:`milepost.traces.turns`).
* Ours: ``block_size`` and ``timestamp_s`` say both, with ``session_id``, ``cache_salt`` and ``breakpoints``.

Ids may be integers or strings, under ``hash_ids`` or ``block_hashes``. Some logs have an id for the last,
partial block of a prompt and some leave it out, and some leave out the last block also where it is full,
since the last token is never taken from a cache. Then nobody knows what those last tokens were: they get a
key that no other line has, so they count and never match. Where a line says its block size and the length of
its answer, ids may go on over the answer; they are cut off at the prompt's last whole block. Any other number
of ids is an error.
"""

import reprlib
from typing import Any

import numpy as np

from milepost.errors import InvalidRequestError
from milepost.traces.envelope import HASH_NAMES, OpenedLine
from milepost.traces.fields import Labels, Record, first_of, positions, whole_number
from milepost.traces.formats import ParsedLine
from milepost.traces.keys import as_keys, hash_to_key
from milepost.traces.request import TraceRequest
from milepost.traces.turns import Turn, turn_of_keys

__all__ = ["HashBlocks"]

_MOONCAKE_BLOCK_TOKENS = 512
_BAILIAN_BLOCK_TOKENS = 16
# As a first turn names the one before it.
_NO_PARENT = (None, -1, "-1", "")
# Tried to tell what a count of ids would fit.
_USUAL_BLOCK_TOKENS = tuple(1 << power for power in range(11))
_LENGTH_NAMES = ("input_length", "input_tokens", "num_prompt_tokens", "prompt_tokens", "num_tokens")


class HashBlocks:
    """Lines with ``hash_ids``."""

    fields = "'hash_ids' with 'input_length'"

    def counts_milliseconds(self, line: OpenedLine) -> bool:
        """Return whether the dialect is not Bailian's, which counts seconds."""
        return not _is_bailian(line.body)

    def recognises(self, line: OpenedLine) -> bool:
        """Return whether there are block ids."""
        return any(name in line.body for name in HASH_NAMES)

    def parse(self, line: OpenedLine, labels: Labels, *, place: str) -> ParsedLine:
        """Return the request of one line. O(num_keys)."""
        record = line.body
        said = whole_number(record, "block_size", least=1)
        is_mooncake = said is None and not _is_bailian(record)
        block_tokens = said or (_MOONCAKE_BLOCK_TOKENS if is_mooncake else _BAILIAN_BLOCK_TOKENS)
        num_tokens = next(
            (count for name in _LENGTH_NAMES if (count := whole_number(record, name, least=1)) is not None),
            None,
        )
        if num_tokens is None:
            raise InvalidRequestError("input_length is missing; give the number of prompt tokens")
        keys = _keys_of(record, num_tokens, block_tokens, place)
        request = TraceRequest(
            keys=keys,
            key_tokens=block_tokens,
            num_tokens=num_tokens,
            breakpoints=positions(record, "breakpoints"),
            **labels,
        )
        return ParsedLine(
            requests=(request,), turn=_turn_of(record, keys, labels["session"] if is_mooncake else None)
        )


def _turn_of(record: Record, keys: Any, session: str | None) -> Turn | None:
    """Return which turn a line is. Load generators write those of a session so that each adds to the one
    before; Bailian's have ids of their own, and name the one before, if any.
    """
    if not _is_bailian(record):
        return turn_of_keys(session, keys[:1])
    parent = record.get("parent_chat_id")
    is_later = parent not in _NO_PARENT and parent != record["chat_id"]
    return turn_of_keys(str(record["chat_id"]), keys[:1], parent=str(parent) if is_later else None)


def _covers_answer(record: Record, num_keys: int, num_tokens: int, block_tokens: int) -> bool:
    """Return whether there are as many ids as blocks in the prompt and its answer together."""
    answer = whole_number(record, "output_length")
    if answer is None or whole_number(record, "block_size") is None:
        return False
    return 0 <= -(-(num_tokens + answer) // block_tokens) - num_keys <= 1


def _is_bailian(record: Record) -> bool:
    return "chat_id" in record


def _keys_of(record: Record, num_tokens: int, block_tokens: int, place: str) -> Any:
    ids = first_of(record, *HASH_NAMES)
    if not isinstance(ids, list):
        raise InvalidRequestError(f"hash_ids={reprlib.repr(ids)}; give a list of ids")
    needed = -(-num_tokens // block_tokens)
    keys = as_keys(ids)
    if keys.size > needed and _covers_answer(record, keys.size, num_tokens, block_tokens):
        keys = keys[: num_tokens // block_tokens]
    if keys.size == needed - 1:
        keys = np.append(keys, hash_to_key(f"rest of {place}"))
    if keys.size != needed:
        fitting = [size for size in _USUAL_BLOCK_TOKENS if 0 <= -(-num_tokens // size) - keys.size <= 1]
        hint = f" (blocks of {fitting[-1]} would fit)" if fitting else ""
        raise InvalidRequestError(
            f"{keys.size} hash_ids do not cover input_length={num_tokens} in blocks of {block_tokens}; give "
            f"{needed}, or say another block_size{hint}"
        )
    keys.flags.writeable = False
    return keys
