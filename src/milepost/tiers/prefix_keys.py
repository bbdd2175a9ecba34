"""Names of payloads: a digest of whose they are and of every token before them."""

from hashlib import blake2b
from typing import final

from milepost.tokens import KeyArray

__all__ = ["PrefixKeys"]

_DIGEST_BYTES = 16


@final
class PrefixKeys:
    """The names of what is stored of one prompt. O(tokens) for all together.

    Args:
        tokens: The prompt.
        tenant: Whose it is.
        segment_tokens: Tokens of a KV segment.
    """

    def __init__(self, tokens: KeyArray, *, tenant: str, segment_tokens: int) -> None:
        salt = tenant.encode(errors="surrogatepass")
        hasher = blake2b(len(salt).to_bytes(8, "little") + salt, digest_size=_DIGEST_BYTES)
        self._hashers = [hasher]
        self._tokens = tokens
        self._segment_tokens = segment_tokens

    def segment(self, end: int) -> str | None:
        """Return the name of the KV segment that ends at ``end``; None for the one before the first."""
        return f"k{self._at(end)}" if end else None

    def state(self, position: int) -> str:
        """Return the name of the state after ``position`` tokens."""
        return f"s{self._at(position)}"

    def tokens(self, start: int, end: int) -> bytes:
        """Return the tokens of ``[start, end)``, int32, little endian."""
        return self._tokens[start:end].astype("<i4").tobytes()

    def _at(self, position: int) -> str:
        step = self._segment_tokens
        number, rest = divmod(position, step)
        while len(self._hashers) <= number:
            known = len(self._hashers) - 1
            hasher = self._hashers[known].copy()
            hasher.update(self._tokens[known * step : (known + 1) * step].data)
            self._hashers.append(hasher)
        hasher = self._hashers[number]
        if rest:
            hasher = hasher.copy()
            hasher.update(self._tokens[number * step : position].data)
        return hasher.hexdigest()
