"""Prompts as arrays of token ids.

The whole core works on one representation: a one-dimensional, contiguous, read-only ``int32`` array.
Conversion happens once, at the edge, and it is where malformed prompts are refused.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from milepost.counts import as_count
from milepost.errors import InvalidRequestError

__all__ = [
    "KeyArray",
    "TokenArray",
    "TokenLike",
    "as_breakpoints",
    "as_keys",
    "as_prompt",
    "as_tokens",
    "common_prefix_length",
    "key_dtype",
]

TokenArray: TypeAlias = npt.NDArray[np.int32]
# One key stands for one token, or for a whole block and all before it (a chained block hash).
KeyArray: TypeAlias = npt.NDArray[np.int32] | npt.NDArray[np.int64]
TokenLike: TypeAlias = Sequence[int] | npt.NDArray[np.integer]

_MAX_TOKEN_ID = int(np.iinfo(np.int32).max)
# Two prompts usually diverge early or not at all, so the comparison doubles its stride from here.
_FIRST_STRIDE = 256


def key_dtype(key_tokens: int) -> np.dtype[Any]:
    """Return the type of the keys of a prompt: token ids, or hashes of blocks of ``key_tokens`` tokens."""
    return np.dtype(np.int32 if key_tokens == 1 else np.int64)


def as_tokens(tokens: TokenLike, *, vocabulary_size: int | None = None, name: str = "prompt") -> TokenArray:
    """Return ``tokens`` as a checked, read-only ``int32`` array of shape ``[num_tokens]``.

    Args:
        tokens: Token ids, each in ``[0, vocabulary_size)`` (or below 2**31 where no size is given).
        vocabulary_size: Number of ids the model knows.
        name: What they are, for a message.

    Raises:
        InvalidRequestError: there are none, or they are not one-dimensional, not of integers, or there is an
            id outside the vocabulary.

    Complexity: O(num_tokens); no copy where the input is already a read-only, contiguous ``int32`` array.

    >>> as_tokens([3, 1, 2]).tolist()
    [3, 1, 2]
    """
    given = _as_array(name, tokens, items="token ids")
    if given.ndim != 1:
        raise InvalidRequestError(
            f"{name} is a {type(tokens).__name__} of {given.ndim} dimensions; a {name} is one list or array "
            "of token ids: pass one at a time"
        )
    if given.size == 0:
        raise InvalidRequestError(f"{name} is empty; give at least one token (a BOS token will do)")
    if given.dtype.kind not in "iu":
        raise InvalidRequestError(
            f"{name} has dtype {given.dtype}{_first_odd(tokens)}; token ids are integers below 2**31: "
            "tokenize the text first"
        )
    limit = _MAX_TOKEN_ID + 1 if vocabulary_size is None else vocabulary_size
    lowest, highest = int(given.min()), int(given.max())
    if lowest < 0 or highest >= limit:
        bad = lowest if lowest < 0 else highest
        where = int(np.flatnonzero(given == bad)[0])
        raise InvalidRequestError(
            f"token id {bad} at position {where} is outside the vocabulary [0, {limit}); "
            "use the tokenizer that belongs to this model"
        )
    checked = np.ascontiguousarray(given, dtype=np.int32)
    if checked is given and given.flags.writeable:
        # The caller may fill this buffer with the next prompt while the first is still in work.
        checked = checked.copy()
    checked.flags.writeable = False
    return checked


def as_keys(keys: TokenLike, *, num_tokens: int, key_tokens: int) -> KeyArray:
    """Return chained block hashes as a checked, read-only ``int64`` array of shape ``[num_whole_blocks]``.

    Nothing can be resumed inside a block, so the key of a partial one at the end is dropped.

    Args:
        keys: One hash a block; that of a partial one at the end may be left out.
        num_tokens: Tokens that they stand for.
        key_tokens: Tokens of a whole block.

    Raises:
        InvalidRequestError: the keys are not that many whole numbers.

    >>> as_keys([7, 8], num_tokens=20, key_tokens=16).tolist()
    [7]
    """
    given = _as_array("keys", keys, items="whole numbers")
    num_whole = num_tokens // key_tokens
    if given.dtype == np.int64 and given.shape == (num_whole,) and num_whole and not given.flags.writeable:
        return given
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InvalidRequestError(
            f"keys are a {type(keys).__name__} of {given.ndim} dimensions and dtype {given.dtype}; give one "
            "whole number a block"
        )
    if num_tokens < 1 or given.size not in (num_whole, -(-num_tokens // key_tokens)):
        raise InvalidRequestError(
            f"{given.size} keys for {num_tokens} tokens in blocks of {key_tokens}; give one key for each "
            "whole block, and one or none for a partial one at the end"
        )
    checked = np.ascontiguousarray(given[:num_whole], dtype=np.int64)
    if given.flags.writeable and np.shares_memory(checked, given):
        checked = checked.copy()
    checked.flags.writeable = False
    return checked


def as_prompt(tokens: TokenLike, *, num_tokens: int | None, key_tokens: int) -> tuple[KeyArray, int]:
    """Return a prompt as checked keys of ``key_tokens`` tokens each, and its length in tokens.

    Args:
        tokens: Token ids; where a key stands for a block, its chained block hashes.
        num_tokens: Length of a prompt of block hashes; whole blocks unless given.
        key_tokens: Tokens of a key.

    Raises:
        InvalidRequestError: as :func:`as_tokens` and :func:`as_keys`, or the length is another.
    """
    if key_tokens == 1:
        keys = as_tokens(tokens)
        if num_tokens is not None and num_tokens != keys.size:
            raise InvalidRequestError(
                f"num_tokens={num_tokens!r} of a prompt of {keys.size} token ids; leave it out"
            )
        return keys, keys.size
    if num_tokens is None:
        num_tokens = np.size(tokens) * key_tokens
    num_tokens = as_count("num_tokens", num_tokens, error=InvalidRequestError)
    return as_keys(tokens, num_tokens=num_tokens, key_tokens=key_tokens), num_tokens


def as_breakpoints(positions: Iterable[int] | None, *, num_tokens: int) -> tuple[int, ...]:
    """Return positions in a prompt as ascending whole numbers, each once.

    Raises:
        InvalidRequestError: one lies outside the prompt, or these are no positions.

    >>> as_breakpoints([40, 7, 40], num_tokens=40)
    (7, 40)
    """
    if positions is None:
        return ()
    if isinstance(positions, str | bytes) or not isinstance(positions, Iterable):
        raise InvalidRequestError(f"breakpoints={positions!r}; give a list of positions in the prompt")
    checked = {as_count("breakpoint", each, error=InvalidRequestError) for each in positions}
    for position in checked:
        if not 0 < position <= num_tokens:
            raise InvalidRequestError(
                f"breakpoint at {position} of a prompt of {num_tokens}; give positions above 0, inside it"
            )
    return tuple(sorted(checked))


def common_prefix_length(left: KeyArray, right: KeyArray) -> int:
    """Return how many leading keys ``left`` and ``right`` share.

    Complexity: O(shared keys), by strides that double, so an early difference is found early.

    >>> common_prefix_length(as_tokens([1, 2, 3]), as_tokens([1, 2, 4, 5]))
    2
    """
    limit = min(left.size, right.size)
    start, stride = 0, _FIRST_STRIDE
    while start < limit:
        stop = min(start + stride, limit)
        differs = left[start:stop] != right[start:stop]
        first = int(differs.argmax())
        if differs[first]:
            return start + first
        start, stride = stop, stride * 2
    return limit


def _as_array(name: str, given: TokenLike, *, items: str) -> npt.NDArray[Any]:
    """Return what numpy makes of ``given``, unless that would hide what it is."""
    if isinstance(given, str | bytes | bytearray):
        raise InvalidRequestError(f"{name} is text; give a list or an array of {items}: tokenize it first")
    try:
        array = np.asarray(given)
    except (ValueError, OverflowError, TypeError, RuntimeError) as error:
        raise InvalidRequestError(
            f"{name} is not a sequence of {items}: {error}; give a list of whole numbers"
        ) from error
    # Among integers, numpy takes True for 1.
    if array.dtype.kind in "iu" and isinstance(given, list | tuple) and bool in set(map(type, given)):
        raise InvalidRequestError(f"{name} holds a bool; give whole numbers alone")
    return array


def _first_odd(tokens: TokenLike) -> str:
    """Return which item of a list is no token id, for a message."""
    for position, token in enumerate(tokens if isinstance(tokens, list | tuple) else ()):
        if type(token) is not int or abs(token) > _MAX_TOKEN_ID:
            return f" ({token!r} at position {position})"
    return ""
