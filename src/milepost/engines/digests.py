"""Who a stored payload belongs to: a digest of the engine, of the tenant and of the exact tokens before it.

The store finds payloads by their tokens, so a digest never decides a match; it is the second opinion. A
payload whose digest disagrees with the prompt it is about to serve is a miss, never a guess. On a disk it is
a payload's name, too, so it is one for which nobody can make up a second prompt, whatever tokens they send.
"""

import hashlib
import json
from typing import Any

import numpy as np
import xxhash

from milepost.tokens import TokenArray

__all__ = ["PrefixDigests", "engine_fingerprint"]


def engine_fingerprint(**facts: Any) -> bytes:
    """Digest everything that two runs must share for their states to be interchangeable."""
    return xxhash.xxh3_128(json.dumps(facts, sort_keys=True, default=str).encode()).digest()


class PrefixDigests:
    """Digests of the prefixes of one tenant's prompt under one engine. O(num_tokens) for all together.

    Args:
        fingerprint: The engine's (see :func:`engine_fingerprint`).
        tokens: The prompt.
        tenant: Whose prompt it is.
        segment_tokens: Segment boundaries are remembered on the way, so they can be asked for at any time.
    """

    def __init__(self, fingerprint: bytes, tokens: TokenArray, *, tenant: str, segment_tokens: int) -> None:
        self._hasher = hashlib.sha256(fingerprint)
        # With its length before it, so that no tenant's name can pass for tokens.
        salt = tenant.encode(errors="surrogatepass")
        self._hasher.update(len(salt).to_bytes(8, "little") + salt)
        self._tokens = np.ascontiguousarray(tokens)
        self._segment_tokens = segment_tokens
        self._position = 0
        self._digests: dict[int, bytes] = {}

    def at(self, position: int) -> bytes:
        """Return the digest of the first ``position`` tokens. Off the segment boundaries, ask in ascending
        order.
        """
        while position > self._position:
            boundary = (self._position // self._segment_tokens + 1) * self._segment_tokens
            stop = min(position, boundary)
            self._hasher.update(self._tokens[self._position : stop].data)
            self._position = stop
            self._digests[stop] = self._hasher.digest()
        return self._digests[position]
