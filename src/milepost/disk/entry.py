"""What an index knows of a payload: all that it takes to find it again after a restart, and no payload."""

import hashlib
import re
from dataclasses import dataclass

__all__ = ["KINDS", "TOKEN_BYTES", "Entry"]

KINDS = ("state", "kv")
# Tokens are stored as int32, little endian.
TOKEN_BYTES = 4
# A key is the name of a file, too.
_KEY = re.compile(r"[a-z][0-9a-f]{8,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A payload, without it.

    Attributes:
        key: A letter and hexadecimal digits; the same key is the same content.
        kind: ``state`` or ``kv``.
        namespace: Who it may be served to, under its model.
        parent: Key of the KV segment before it in its prompt; None where it begins with the prompt.
        start: Where its tokens begin: for a state, where the last whole segment before it ends.
        end: Where they end; a state lies there.
        tokens: Those of ``[start, end)``, int32, little endian.
        num_bytes: Of the payload in memory.
        prompt_tokens: Length of the prompt that it was stored for.
        digest: The payload's own, of all tokens before ``end`` and of whose they are.

    Raises:
        ValueError: it cannot be one.
    """

    key: str
    kind: str
    namespace: str
    parent: str | None
    start: int
    end: int
    tokens: bytes
    num_bytes: int
    prompt_tokens: int
    digest: bytes

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key) or not (self.parent is None or _KEY.fullmatch(self.parent)):
            raise ValueError(
                f"key {self.key!r} after {self.parent!r}: a letter and hexadecimal digits are due"
            )
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}; one of {', '.join(KINDS)} is due")
        if not 0 <= self.start <= self.end or self.num_bytes < 0 or self.prompt_tokens < 0:
            raise ValueError(f"{self.num_bytes} bytes of tokens {self.start} to {self.end}")
        if len(self.tokens) != (self.end - self.start) * TOKEN_BYTES:
            raise ValueError(f"{len(self.tokens)} bytes of tokens for {self.start} to {self.end}")

    def fixed_digest(self) -> str:
        """Digest what a file's row in an index may not lose or exchange: all but the prompt's length."""
        hasher = hashlib.sha256()
        parts = (
            self.key, self.kind, self.namespace, self.parent or "", self.start, self.end, self.num_bytes
        )  # fmt: skip
        for part in (*(str(each).encode(errors="surrogatepass") for each in parts), self.tokens, self.digest):
            hasher.update(len(part).to_bytes(8, "little") + part)
        return hasher.hexdigest()
