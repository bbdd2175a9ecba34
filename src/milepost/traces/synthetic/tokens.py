"""Prompts made of segments, and their tokens and block hashes, computed and not stored.

A segment is a seed and a length: its tokens are the stream of SplitMix64 from that seed, so a session of a
hundred thousand tokens is remembered in a few numbers. The hash of a prefix is the sum, modulo 2**64, of
one hash per (token, position): a running sum gives those of all prefixes at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Segment", "block_keys", "prompt_tokens"]

_Words: TypeAlias = npt.NDArray[np.uint64]

_VOCABULARY_BITS = 17
_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a prompt; equal segments have equal tokens, and a longer one begins as the shorter.

    Args:
        seed: What its tokens are, 64 bits.
        num_tokens: How many there are.
        ends_message: Whether a message ends with it.
    """

    seed: int
    num_tokens: int
    ends_message: bool = True


def prompt_tokens(segments: Sequence[Segment]) -> npt.NDArray[np.int64]:
    """Return the token ids of a prompt, shape ``[num_tokens]``, each below 2**17. O(num_tokens).

    >>> short, long = Segment(seed=5, num_tokens=2), Segment(seed=5, num_tokens=3)
    >>> (prompt_tokens([short]) == prompt_tokens([long])[:2]).all()
    np.True_
    """
    streams = [_mix(np.uint64(part.seed) + _steps(part.num_tokens) * _GOLDEN_GAMMA) for part in segments]
    return (np.concatenate(streams) >> np.uint64(64 - _VOCABULARY_BITS)).astype(np.int64)


def block_keys(tokens: npt.NDArray[np.int64], *, block_tokens: int) -> npt.NDArray[np.int64]:
    """Return a key per block, equal where all tokens up to the block's end are equal. O(num_tokens)."""
    places = _steps(tokens.size) << np.uint64(_VOCABULARY_BITS)
    prefix_hashes = np.cumsum(_mix(places + tokens.astype(np.uint64)), dtype=np.uint64)
    last_tokens = np.append(np.arange(block_tokens - 1, tokens.size - 1, block_tokens), tokens.size - 1)
    return (_mix(prefix_hashes[last_tokens]) >> np.uint64(1)).astype(np.int64)


def _steps(count: int) -> _Words:
    return np.arange(1, count + 1, dtype=np.uint64)


def _mix(words: _Words) -> _Words:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
